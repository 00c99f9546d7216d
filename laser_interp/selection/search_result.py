"""What a search found: the cells, and the one that validation chooses."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd

from laser_interp.display import Drawable
from laser_interp.edits.edit_spec import CHOSEN_KINDS, Described, EditSpec
from laser_interp.facts.fact_set import FactSet


@dataclass(frozen=True, repr=False)
class Selection(Described):
    """The cell that validation chose.

    Attributes:
        cell: the edit. Its ρ is the one that was asked for, even if the rank was lifted to 1.
        score, loss: of the edit on validation; the score is top-1 accuracy unless the task has another rule.
        base_score, base_loss: of the model as trained on validation.
        facts: those of the search, on whose prompts an edit acts that acts at chosen positions.
    """

    cell: EditSpec
    score: float
    loss: float
    base_score: float
    base_loss: float
    facts: FactSet | None = field(default=None, repr=False, compare=False)

    @property
    def improves(self) -> bool:
        """Whether it beats the model as trained on validation, by score, then loss."""
        return (self.score, -self.loss) > (self.base_score, -self.base_loss)

    def __repr__(self) -> str:
        verdict = "better" if self.improves else "no better"
        return (
            f"{self.cell}: on validation {verdict} than the model as trained, with a score of {self.score:.3f} instead "
            f"of {self.base_score:.3f} and a loss of {self.loss:.3f} instead of {self.base_loss:.3f}"
        )


@dataclass(frozen=True)
class Spent:
    """What a search looked at on validation before it chose.

    Attributes:
        method: see `SearchSettings.method`.
        n_cells, n_grid: cells that were looked at, and those of the whole grid.
        cell_prompts: prompts times cells that were run, the model as trained among them.
        n_attributed: prompts of the attribution pass; each costs about three times a prompt of a cell.
        n_texts: how many times a running text was read.
        share_of_grid: the cost of all this, as a share of the cost of the whole grid on validation.
    """

    method: str
    n_cells: int
    n_grid: int
    cell_prompts: int
    n_attributed: int
    share_of_grid: float
    n_texts: int = 0

    def __str__(self) -> str:
        if self.method == "grid":
            return f"the grid of {self.n_cells} cells"
        looked_at = [f"{self.cell_prompts} cell-prompts"] if self.cell_prompts else []
        looked_at += [f"{self.n_attributed} prompts with gradients"] if self.n_attributed else []
        looked_at += [f"a text read {self.n_texts} times"] if self.n_texts else []
        return (
            f"{self.method}: {self.n_cells} of {self.n_grid} cells, {' and '.join(looked_at)}, "
            f"{self.share_of_grid:.1%} of the grid's cost"
        )


@dataclass(frozen=True, repr=False)
class Search(Drawable):
    """A finished search.

    Attributes:
        cells: one row per (cell, split): the edit, and means over facts and prompts. The model as trained is the cell
            of kind "base".
        notes: what was lifted to rank 1 or dropped as equal to another cell, and which cells were stopped after
            validation.
        rounds: of a race, one row per (round, cell); of other methods what they tried; None for a grid.
        spent: what was looked at; None where it is not known.
        specs: text of a cell -> the cell, where the text does not say all of it, as of learned gains.
        facts: those that were asked.

    Example:
        >>> search = li.search(model, facts, matrices="mlp", rhos=[0.2, 0.05])
        >>> search.select().cell
    """

    cells: pd.DataFrame
    notes: tuple[str, ...] = field(default=())
    rounds: pd.DataFrame | None = None
    spent: Spent | None = None
    specs: Mapping[str, EditSpec] = field(default_factory=dict)
    facts: FactSet | None = None

    figure_name = "loss_by_layer"
    drawn_from: ClassVar[Mapping[str, str]] = {"cells": "cells"}

    def _best(self) -> tuple[pd.DataFrame, str]:
        """The model as trained and the three best cells, with their scores by split; and the split that ranks them."""
        edits = self.cells[self.cells["kind"].isin(CHOSEN_KINDS)]
        splits = sorted(set(self.cells["split"]), reverse=True)  # validation first
        chosen = edits[edits["split"] == splits[0]].sort_values(
            ["score", "loss"], ascending=[False, True], kind="stable"
        )
        shown = pd.DataFrame({"cell": ["", *chosen["cell"].head(3)]})
        for split in splits:
            means = self.cells[self.cells["split"] == split].set_index("cell")
            for metric in ("score", "loss"):
                shown[f"{split}: {metric}"] = means[metric].reindex(shown["cell"]).to_numpy()
        return shown.replace({"cell": {"": "as trained"}}), splits[0]

    def _n_sites(self) -> int:
        names = self.cells.loc[self.cells["kind"].isin(CHOSEN_KINDS), "cell"].unique()
        return len({site for name in names for site in EditSpec.parse(name).sites})

    def __repr__(self) -> str:
        shown, split = self._best()
        table = shown.to_string(index=False, float_format=lambda v: f"{v:.3f}", na_rep="–")
        return f"Search over {self._n_sites()} sites; the best cells by {split}:\n{table}"

    def _repr_html_(self) -> str:
        shown, split = self._best()
        table = shown.to_html(index=False, float_format=lambda v: f"{v:.3f}", na_rep="–")
        return f"<p>Search over {self._n_sites()} sites; the best cells by {split}:</p>{table}"

    def _of_split(self, split: str) -> tuple[pd.DataFrame, pd.Series]:
        """The cells of a split, and the one of the model as trained."""
        cells = self.cells[self.cells["split"] == split]
        if cells.empty:
            raise ValueError(f"the search has no split {split!r}: it has {sorted(set(self.cells['split']))}")
        return cells, cells[cells["kind"] == "base"].iloc[0]

    def changes(self, split: str) -> pd.DataFrame:
        """The change of each cell with one site against the model as trained: `d_top1`, `d_loss`, `d_p_generic`.

        Raises:
            ValueError: no such split.
        """
        cells, base = self._of_split(split)
        changes = cells[(cells["kind"] != "base") & cells["layer"].notna()].astype({"layer": int})
        for metric in ("top1", "loss", "p_generic"):
            changes[f"d_{metric}"] = changes[metric] - base[metric]
        return changes

    def select(self, split: str = "validation", *, kinds: Collection[str] = CHOSEN_KINDS) -> Selection:
        """The best cell by score, then by loss.

        Args:
            split: the split whose scores decide.
            kinds: which cells may be selected: "laser" and "gains", and where they were asked for "inject" and
                "band".

        Raises:
            ValueError: no such split, or no cell with a finite loss.
        """
        cells, base = self._of_split(split)
        edits = cells[cells["kind"].isin(list(kinds)) & cells["loss"].notna() & (cells["n_not_finite"] == 0)]
        if set(cells["kind"]) == {"base"}:
            raise ValueError(
                "no edit was accepted, so that nothing can be selected: let the search look at more matrices or "
                "layers, or by another method"
            )
        if edits.empty:
            raise ValueError("no cell of the search has a finite loss: nothing can be selected")
        best = edits.sort_values(["score", "loss"], ascending=[False, True], kind="stable").iloc[0]
        return Selection(
            self.specs.get(best["cell"]) or EditSpec.parse(best["cell"]),
            float(best["score"]),
            float(best["loss"]),
            float(base["score"]),
            float(base["loss"]),
            self.facts,
        )
