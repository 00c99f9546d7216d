"""Composing LASER on several sites: guided by gradients, or greedily in the paper's order."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.display import Drawable
from laser_interp.edits.blocks import Blocks
from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import Site
from laser_interp.facts.tasks import AnyFacts, Task
from laser_interp.models.model import Model
from laser_interp.scoring.scores import summarise
from laser_interp.selection.cells import Cell
from laser_interp.selection.composition_steps import cell_of, in_one_line
from laser_interp.selection.greedy_composition import compose_greedily
from laser_interp.selection.guided_composition import compose_by_gradients
from laser_interp.selection.plan import Plan, as_task, sites_of
from laser_interp.selection.score_cells import score_cells
from laser_interp.selection.search_run import save_facts
from laser_interp.selection.settings import CompositionSettings, GridSettings, SearchSettings
from laser_interp.selection.units import WorkerOptions
from laser_interp.statistics.cluster_intervals import Clusters, with_interval
from laser_interp.storage.provenance import provenance
from laser_interp.storage.run_folder import open_run
from laser_interp.storage.schemas import check


@dataclass(frozen=True, repr=False)
class Composition(Drawable):
    """LASER on several sites, each added to those before.

    Attributes:
        ranks: site -> the rank kept there, in the order in which they were added; empty where nothing improved on
            validation.
        steps: one row a try, in order: the site, its ρ and rank, the validation `score` and `loss` of all edits
            together with this one, whether it was `kept`, and the whole `edit` in one line.
        scores: means per edit ("base", "composed") and split, test among them.
        test: scores of the test facts under all its edits, with the columns of `li.score` and "composed" for `edit`;
            empty where nothing was kept.
        by_step: what each edit adds, one row for each number of edits: `n_edits, edit, validation_score,
            validation_loss, test_score, test_loss`, and the test `change` against one edit fewer with `change_lo,
            change_hi`, a 95 % interval over subjects.
        blocks: how each matrix is divided; if it is, each rank is the rank of one block.
    """

    ranks: Mapping[Site, int]
    steps: pd.DataFrame
    scores: pd.DataFrame
    by_step: pd.DataFrame
    test: pd.DataFrame
    blocks: Blocks | None = None

    figure_name = "composition"

    @property
    def figure_tables(self) -> dict[str, pd.DataFrame]:
        return {"composition": self.steps, "composition_scores": self.scores}

    def __repr__(self) -> str:
        columns = ["n_edits", "edit", "validation_score", "test_score", "change"]
        shown = self.by_step[[name for name in columns if name in self.by_step]]
        return f"Composition of {len(self.ranks)} edits\n{shown.to_string(index=False, na_rep='–')}"

    def __str__(self) -> str:
        return in_one_line(cell_of(self.ranks, self.blocks))

    @property
    def cell(self) -> Cell:
        """All its edits as one cell.

        Raises:
            ValueError: nothing was kept.
        """
        if not self.ranks:
            raise ValueError("no step improved on validation: there is nothing to compose")
        return cell_of(self.ranks, self.blocks)

    def edit(self, model: Model) -> Edit:
        """All its edits as one.

        Raises:
            ValueError: nothing was kept.
        """
        return self.cell.edit(model)


def compose(
    model: Model,
    task: AnyFacts,
    settings: CompositionSettings | None = None,
    *,
    start: Cell | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    **changes: Any,
) -> Composition:
    """Add one LASER after the other while validation improves.

    The method "guided" uses gradients of the edited model to propose edits, lets them race, and adds the winner. The
    first edit has to improve score, then loss. Each further one has to raise the score, and the log-probabilities by
    more than chance. The method "greedy" is the paper's: it tries edits from the last layer down and from the smallest
    ρ up, and keeps one if it improves score, then loss. A larger ρ then replaces a smaller one at the same site. The
    test facts are scored once, at the end.

    Args:
        task: as `li.search` takes it.
        settings, changes: where to try, as in `li.search`; the paper composes MLP matrices.
        start: LASER that was chosen before; the guided method adds edits to it.
        out: folder for the results. Each part is written when it is done, and a later run with the same settings
            continues from there.

    Raises:
        ValueError: bad settings, a folder with another run, or one that another process is writing to.

    Example:
        >>> composed = li.compose(model, facts, rhos=[0.4, 0.05])
        >>> print(composed)
    """
    settings = CompositionSettings.of(settings, changes)
    asked, _ = as_task(model, task)
    task = asked.keep(asked.facts.ensure_split(settings.split, seed=settings.seed))
    blocks = Blocks.parse(settings.blocks)
    first = _of(start, blocks)
    if first and settings.method == "greedy":
        raise ValueError("start is for the method guided alone: the paper's order begins with the last layer")
    identity = provenance(model, task.facts) | {"rule": task.rule, "protocol": task.protocol} | settings.identity()
    identity |= {
        "composed": [str(site) for site in sites_of(model, settings)],
        "start": in_one_line(cell_of(first, blocks)),
    }
    with ExitStack() as stack:
        folder = None
        if out is not None:
            folder = stack.enter_context(open_run(out, identity))
            save_facts(folder, task.facts)
        if settings.method == "greedy":
            ranks, tried = compose_greedily(model, task, settings, folder, progress)
        else:
            shared = {name: getattr(settings, name) for name in GridSettings.__dataclass_fields__}
            plan = Plan(model, task, SearchSettings(**shared, method="race", candidates=False))
            ranks, tried = compose_by_gradients(plan, first, folder, progress, most=settings.most_edits)
        steps = check(tried, "steps")
        cells = [cell_of(dict(list(ranks.items())[:n]), blocks) for n in range(1, len(ranks) + 1)]
        parts = None if folder is None else folder.path / "by-step"
        scores, by_step, test = _tested(model, task, cells, settings, parts, progress)
        if folder is not None:
            folder.write_table("composition", steps, "steps")
            folder.write_table("composition_scores", scores)
            folder.write_table("composition_by_step", by_step)
    return Composition(ranks, steps, scores, by_step, test, blocks)


def _of(start: Cell | None, blocks: Blocks | None) -> dict[Site, int]:
    if start is None:
        return {}
    if start.kind != "laser":
        raise ValueError(f"start is {start}: expected LASER, whose sites and ranks are kept")
    if start.blocks != blocks:
        raise ValueError(f"start is {start}, and blocks is {blocks}: expected the same blocks of both")
    return dict(zip(start.sites, start.ranks, strict=True))


def _tested(
    model: Model, task: Task, cells: Sequence[Cell], settings: CompositionSettings, out: Path | None, progress: bool
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Means of the model as trained and of all edits, what each edit adds, and the test scores under all of them.

    Args:
        cells: of one edit, of two, and so on.
    """
    options = WorkerOptions(generic=settings.generic, candidates=False, engine=settings.engine, memory=settings.memory)
    labelled: dict[str, Cell | None] = {"base": None} | {str(n): cell for n, cell in enumerate(cells, start=1)}
    scores = score_cells(model, task, labelled, options, out=out, progress=progress)
    means = summarise(scores, ("edit", "split"))
    at = means.set_index(["edit", "split"])[["score", "loss"]].to_dict()
    tested = dict(tuple(scores[scores["split"] == "test"].groupby("edit", sort=False)))
    clusters = Clusters(tested["base"]["subject"]) if tested else None
    table = []
    for n, name in enumerate(labelled):
        before = str(n - 1) if n > 1 else "base"
        row: dict[str, Any] = {"n_edits": n, "edit": in_one_line(cells[n - 1]) if n else ""}
        for split in ("validation", "test"):
            for metric in ("score", "loss"):
                row[f"{split}_{metric}"] = at[metric].get((name, split), math.nan)
        if clusters is not None and n:
            columns = [tested[label]["score"].to_numpy(float) for label in (before, name)]
            row |= with_interval("change", clusters.change(*columns))
        table.append(row)
    last = str(len(cells)) if cells else "base"
    renamed = {last: "composed"} if cells else {}
    shown = means[means["edit"].isin(["base", last])].replace({"edit": renamed})
    test = scores[(scores["edit"] == last) & (scores["split"] == "test")].assign(edit="composed")
    test = test if cells else test[:0]
    return shown.reset_index(drop=True), pd.DataFrame(table), test.reset_index(drop=True)
