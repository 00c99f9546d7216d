"""Through training: the same questions at each checkpoint, so that it shows when the discarded part goes wrong.

1. Validation facts choose an edit at the last checkpoint, or the edit is given. It is the same one at every checkpoint.
2. At each checkpoint, one model at a time, the test facts are scored as trained, under the edit, and under its
   discarded part alone; and the spectra of the edited matrices are compared with those of the last checkpoint.
3. The tables are made from these scores, with the counts of what the model had read by then, where these are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from laser_interp.choices import Executor, check_choice
from laser_interp.display import Drawable
from laser_interp.edits.edit import Edit
from laser_interp.edits.edit_spec import EditSpec, describe_edits
from laser_interp.edits.other_changes import laser_of_difference
from laser_interp.edits.sites import Site, weight
from laser_interp.edits.spectra import spectrum
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import AnyFacts, facts_of, own_task
from laser_interp.frequency.counting import count
from laser_interp.frequency.shipped_counts import counts_of, own_counts
from laser_interp.models.loading import load_model
from laser_interp.models.model import Model
from laser_interp.parallel.ray_cluster import each
from laser_interp.plots.registry import draw_all
from laser_interp.progress import progress_bar
from laser_interp.scoring.scores import score
from laser_interp.selection.plan import divided_task
from laser_interp.selection.search_run import search
from laser_interp.selection.settings import SearchSettings
from laser_interp.signatures import with_settings
from laser_interp.statistics.paired_scores import known_counts
from laser_interp.statistics.through_training import in_words, training_tables
from laser_interp.storage.provenance import provenance
from laser_interp.storage.run_folder import FIGURES, REPORT, RunFolder, open_run
from laser_interp.studies.training_checkpoints import Checkpoint, checkpoints

Counts = pd.DataFrame | pd.Series | Mapping[str, float] | Mapping[int, pd.DataFrame]
Scored = tuple[pd.DataFrame, pd.DataFrame]  # scores and spectra at a checkpoint
EACH, DIFFERENCE = "each", "difference"


@dataclass(frozen=True, repr=False)
class Trajectory(Drawable):
    """What was found at the checkpoints of a training.

    Attributes:
        tables: name -> table; see `laser_interp.statistics.through_training`.
        edit: the edit that is the same at every checkpoint.
        checkpoints: in order.
    """

    tables: Mapping[str, pd.DataFrame]
    edit: EditSpec
    checkpoints: Sequence[Checkpoint]

    figure_name = "loss_over_training"

    @property
    def report(self) -> str:
        """What was found, in words, as Markdown."""
        return "\n\n".join([f"# {self.edit} through training", *in_words(self.tables, str(self.edit))]) + "\n"

    def __repr__(self) -> str:
        return f"Trajectory of {self.edit} over {len(self.checkpoints)} checkpoints\n{self.report}"


@dataclass(frozen=True)
class _Asked:
    """What is asked at every checkpoint; it travels to the workers."""

    facts: FactSet
    spec: EditSpec
    also: str | None
    settings: SearchSettings
    final: Mapping[str, tuple[np.ndarray, np.ndarray]]  # site -> the directions kept at the last checkpoint
    first_prompt: Sequence[int]  # as tokens
    load: Mapping[str, Any] = field(default_factory=dict)


@with_settings(SearchSettings)
def trajectory(
    checkpoints: Sequence[Checkpoint | str | Path | tuple[str, str]] | str | Path,
    facts: AnyFacts,
    counts: Counts | None = None,
    edit: EditSpec | Edit | str | None = None,
    *,
    settings: SearchSettings | None = None,
    load: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    executor: Executor = "local",
    workers: int | None = None,
    progress: bool = True,
    **changes: Any,
) -> Trajectory:
    """Ask the same questions at each checkpoint of a training.

    Args:
        checkpoints: what `li.checkpoints` gives, or takes; or a list of names, folders or (hub id, revision).
        facts: their validation split chooses the edit, and their test split is reported.
        counts: training frequencies, one row a fact or by fact_id; or step -> the table of what had been read by then,
            as `li.count(..., until=...)` gives it. None takes the facts' own frequencies.
        edit: the edit, as in "3.in:0.05"; None lets a search on validation choose it at the last checkpoint. "each": a
            search also chooses one at each checkpoint. "difference": the same ranks are also kept of what training
            changed since the checkpoint before (`li.laser_of_difference`; two models are then in memory), beside
            "undone", which keeps nothing of it.
        settings, changes: of the search; see `SearchSettings`.
        load: options of `li.load_model`, the same for all checkpoints.
        out: folder for the results. A run that was stopped continues from there.
        executor: "local", one model in memory at a time, or "ray", where each checkpoint is a task.
        workers: how many Ray tasks at a time.

    Raises:
        ValueError: fewer than two checkpoints, two of one step, counts of other steps, or bad settings.

    Example:
        >>> found = li.trajectory("organism", "organism", edit="3.in:0.05", progress=False)
        >>> found.tables["trajectory"].query("facts == 'all'")[["step", "edit", "accuracy"]]
    """
    asked = _checkpoints(checkpoints)
    check_choice("executor", executor, Executor)
    chosen = SearchSettings.of(settings, changes)
    also = edit if isinstance(edit, str) and edit in (EACH, DIFFERENCE) else None
    if also == DIFFERENCE and chosen.blocks is not None:
        raise ValueError(f"the edit {DIFFERENCE!r} keeps directions of whole matrices: leave blocks out")
    by_step = _counts(counts, facts_of(facts), asked)
    last = _load(asked[-1], load)
    given = None if also is not None else _described(last, edit)
    task, notes = divided_task(last, own_task(facts_of(facts)), chosen.split, chosen.seed)
    identity = provenance(last, task.facts) | {
        "checkpoints": [f"{one.name} {one.fingerprint[:16]}".strip() for one in asked],
        "edit": None if given is None else str(given),
        "also": also,
        **chosen.identity(),
    }
    with open_run(out, identity, task.facts) as folder:
        where = None if out is None else folder.path / "search"
        spec = given or search(last, task.facts, chosen, out=where, progress=progress).select().cell
        first = last.encode(task.facts.split("test").facts[0].prompt)
        shared = _Asked(task.facts, spec, also, chosen, _kept(last, spec, task.facts), first, dict(load or {}))
        del last
        scored = list(_at_all(shared, asked, folder, executor, workers, progress))
        tables = training_tables({one.step: found for one, found in zip(asked, scored, strict=True)}, by_step)
        found = Trajectory(tables, spec, asked)
        if out is not None:
            about = {"model": asked[-1].name, "edit": str(spec), "command": f"laser-interp figures {folder.path.name}"}
            for name, table in tables.items():
                folder.write_table(name, table, **about)
            draw_all(tables, folder.path / FIGURES, about=about)
            (folder.path / REPORT).write_text(found.report + "".join(f"\n- {n}" for n in notes), encoding="utf-8")
    return found


def counts_so_far(
    several: Sequence[Checkpoint], facts: FactSet, corpus: Any, documents_per_step: int, *, progress: bool = True
) -> dict[int, pd.DataFrame]:
    """Step -> how often the first documents of a corpus, those that training had read by then, mention each fact.

    Args:
        corpus: as `li.count` takes it, in the order of training.
        documents_per_step: how many documents training read in a step. At step 0 it had read none.
    """
    steps = progress_bar([one.step for one in several], desc="counting", unit="step", disable=not progress)
    found = {s: count(facts, corpus, until=max(s, 1) * documents_per_step, progress=False) for s in steps}
    if (first := found.get(0)) is not None:
        found[0] = first.assign(n_subject=0, n_object=0, n_both=0, n_docs=0)
    return found


def _described(model: Model, edit: EditSpec | Edit | str | None) -> EditSpec | None:
    if isinstance(edit, str):
        return describe_edits(model, edit)
    if edit is not None and not isinstance(edit, Edit | EditSpec):
        raise ValueError(
            f"the edit is {edit!r}: expected an edit, its text as in '3.in:0.05', {EACH!r} or {DIFFERENCE!r}"
        )
    return EditSpec.of(edit) if isinstance(edit, Edit) else edit


def _checkpoints(given: Any) -> list[Checkpoint]:
    if not isinstance(given, str | Path | Sequence):
        raise ValueError(f"the checkpoints are {given!r}: expected a folder, a hub id, or a list of checkpoints")
    several = checkpoints(given) if isinstance(given, str | Path) else [Checkpoint.of(one) for one in given]
    several = sorted(several, key=lambda one: one.step)
    steps = [one.step for one in several]
    if len(steps) < 2 or len(set(steps)) < len(steps):
        raise ValueError(f"the checkpoints are of the steps {steps}: expected two or more, each of another step")
    return several


def _counts(counts: Counts | None, facts: FactSet, asked: Sequence[Checkpoint]) -> dict[int, pd.DataFrame] | None:
    """Step -> the counts that hold then."""
    for known_of in (own_counts, counts_of):
        counts = known_of(facts) if counts is None else counts
    if counts is None:
        return None
    if not isinstance(counts, Mapping) or any(isinstance(name, str) for name in counts):  # the same at all steps
        known: Any = counts
        return dict.fromkeys((one.step for one in asked), known_counts(known))
    by_step: Mapping[Any, Any] = counts
    if missing := [one.step for one in asked if one.step not in by_step]:
        raise ValueError(f"there are no counts for step {missing[0]}: expected a table for each checkpoint's step")
    return {one.step: known_counts(by_step[one.step]) for one in asked}


def _load(checkpoint: Checkpoint, load: Mapping[str, Any] | None) -> Model:
    options = {} if checkpoint.revision is None else {"revision": checkpoint.revision}
    return load_model(checkpoint.source, **options, **dict(load or {}))


def _at_all(
    asked: _Asked,
    several: Sequence[Checkpoint],
    folder: RunFolder,
    executor: Executor,
    workers: int | None,
    progress: bool,
) -> Iterator[Scored]:
    """Scores and spectra of each checkpoint, in order; those that are in the folder already are not made again."""
    found: dict[int, Scored] = {}
    waiting: list[tuple[Checkpoint, Checkpoint | None]] = []
    for i, one in enumerate(several):
        scores, spectra = (folder.read_part(f"{one.step:09d}/{name}", name) for name in _PARTS)
        if scores is not None and spectra is not None:
            found[one.step] = scores, spectra
        else:
            waiting.append((one, several[i - 1] if i else None))
    bar = progress_bar(total=len(several), initial=len(found), desc="checkpoints", unit="", disable=not progress)
    done = (
        each(_at, (asked,), waiting, workers)
        if executor == "ray"
        else ((i, _at(asked, pair)) for i, pair in enumerate(waiting))
    )
    with bar:
        for i, result in done:
            step = waiting[i][0].step
            found[step] = result
            for name, table in zip(_PARTS, result, strict=True):
                folder.write_part(f"{step:09d}/{name}", table, name, step=step)
            bar.update(1)
    yield from (found[one.step] for one in several)


_PARTS = ("scores", "training_spectra")  # the schemas of what is kept of a checkpoint


def _at(asked: _Asked, pair: tuple[Checkpoint, Checkpoint | None]) -> Scored:
    """Scores of the test facts at a checkpoint, and the spectra of the edited matrices."""
    checkpoint, before = pair
    model = _load(checkpoint, asked.load)
    test = asked.facts.split("test")
    shapes = {site: tuple(weight(model, Site.parse(site)).shape) for site in asked.final}
    of_last = {site: (U.shape[0], Vh.shape[1]) for site, (U, Vh) in asked.final.items()}
    if (shapes, model.encode(test.facts[0].prompt)) != (of_last, asked.first_prompt):
        raise ValueError(
            f"{checkpoint} has other matrices or other tokens than the last checkpoint: expected one training"
        )
    edit = asked.spec.edit(model, asked.facts)
    edits: dict[str, Edit | None] = {"base": None, "laser": edit, "discarded": edit.discarded()}
    chosen = ""
    if asked.also == EACH:
        own = search(model, asked.facts, asked.settings, progress=False).select()
        chosen, edits[EACH] = str(own.cell), own.edit(model)
    if asked.also == DIFFERENCE and before is not None:
        base = _load(before, asked.load)
        for label, keeps in ((DIFFERENCE, True), ("undone", False)):
            of_sites = [
                laser_of_difference(model, base, site, rank=U.shape[1] * keeps) for site, (U, _) in asked.final.items()
            ]
            edits[label] = replace(reduce(add, of_sites), path=edit.path, placement=edit.placement)
    scores = score(model, test, edits, progress=False)
    return scores, _spectra(model, asked.spec, asked.final).assign(each=chosen)


def _kept(model: Model, spec: EditSpec, facts: FactSet) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each edited site the directions that the edit keeps: `[d_in, k]` and `[k, d_out]`."""
    kept = {}
    for site, part in spec.edit(model, facts).parts.items():
        known, k = part.spectrum, int((part.gains != 0).sum())
        if not known.is_orthonormal or not bool((part.gains[:k] != 0).all()):
            k = 0  # it keeps no first directions of the whole matrix
        kept[str(site)] = known.U[:, :k].double().numpy(), known.Vh[:k].double().numpy()
    return kept


def _spectra(model: Model, spec: EditSpec, final: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    rows = []
    for name, (U, Vh) in final.items():
        now = spectrum(model, Site.parse(name), blocks=spec.blocks)
        k = U.shape[1]
        above = now.energy[: now.rank_above_noise].sum() if now.is_orthonormal else np.nan
        overlaps = [
            float(np.square(ours.T @ theirs).sum() / k) if k else np.nan
            for ours, theirs in ((now.U[:, :k].double().numpy(), U), (now.Vh[:k].double().numpy().T, Vh.T))
        ]
        row = {"site": name, "stable_rank": now.stable_rank, "energy_above_noise": float(above), "rank_kept": k}
        rows.append(row | {"overlap_in": overlaps[0], "overlap_out": overlaps[1]})
    return pd.DataFrame(rows)
