"""Composing LASER on several sites: guided by gradients, or greedily in the paper's order."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from laser_interp.cluster_intervals import Clusters, with_interval
from laser_interp.display import Drawable
from laser_interp.edits.blocks import Blocks
from laser_interp.edits.edit_spec import Described, EditSpec
from laser_interp.edits.sites import Site
from laser_interp.edits.spectra import block_rank
from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.tasks import AnyFacts, Task
from laser_interp.models.model import Model
from laser_interp.progress import progress_bar
from laser_interp.scoring.scores import summarise
from laser_interp.selection.cell_table import cell_means
from laser_interp.selection.execution import Execution
from laser_interp.selection.plan import Plan, divided_task
from laser_interp.selection.race import Work, is_worse, proposed, race_cells, read_units, score_base
from laser_interp.selection.score_store import ScoreStore
from laser_interp.selection.settings import CompositionSettings, SearchSettings
from laser_interp.signatures import with_settings
from laser_interp.storage.run_folder import RunFolder, open_run
from laser_interp.storage.schemas import check


@dataclass(frozen=True, repr=False)
class Composition(Described, Drawable):
    """LASER on several sites, each added to those before.

    Attributes:
        spec: all its edits as one, in the order in which they were added; None where nothing improved on validation.
        steps: one row a try, in order: the site, its ρ and rank, the validation `score` and `loss` of all edits
            together with this one, whether it was `kept`, and the whole `edit` in one line.
        scores: means per edit ("base", "composed") and split, test among them.
        test: scores of the test facts under all its edits, with the columns of `li.score` and "composed" for `edit`;
            empty where nothing was kept.
        by_step: what each edit adds, one row for each number of edits: `n_edits, edit, validation_score,
            validation_loss, test_score, test_loss`, and the test `change` against one edit fewer with `change_lo,
            change_hi`, a 95 % interval over subjects.
        facts: those that were asked.
    """

    spec: EditSpec | None
    steps: pd.DataFrame
    scores: pd.DataFrame
    by_step: pd.DataFrame
    test: pd.DataFrame
    facts: FactSet | None = field(default=None, repr=False)

    figure_name = "composition"
    drawn_from: ClassVar[Mapping[str, str]] = {"composition_by_step": "by_step", "composition_scores": "scores"}

    @property
    def ranks(self) -> dict[Site, int]:
        """The rank that is kept at each site, of each block if it is divided; empty where nothing was kept."""
        return {} if self.spec is None else dict(zip(self.spec.sites, self.spec.ranks, strict=True))

    def __repr__(self) -> str:
        shown = self.by_step.filter(["n_edits", "edit", "validation_score", "test_score", "change"])
        return f"Composition of {len(self.ranks)} edits\n{shown.to_string(index=False, na_rep='–')}"

    def __str__(self) -> str:
        return "" if self.spec is None else str(self.spec)

    @property
    def cell(self) -> EditSpec:
        """All its edits as one.

        Raises:
            ValueError: nothing was kept.
        """
        if self.spec is None:
            raise ValueError("no step improved on validation: there is nothing to compose")
        return self.spec


@with_settings(CompositionSettings)
def compose(
    model: Model,
    task: AnyFacts,
    settings: CompositionSettings | None = None,
    *,
    start: EditSpec | None = None,
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
    asked, _ = divided_task(model, task, settings.split, settings.seed)
    out = None if out is None else Path(out)
    return run_composition(model, asked, settings, start=start, out=out, progress=progress)


def run_composition(
    model: Model,
    task: Task,
    settings: CompositionSettings,
    *,
    start: EditSpec | None = None,
    out: Path | None = None,
    store: ScoreStore | None = None,
    progress: bool = True,
) -> Composition:
    """See `compose`.

    Args:
        store: where scores of whole edits are kept, if others ask for them too.
    """
    plan = Plan(model, task, SearchSettings.of(settings, {"method": "race", "candidates": False}))
    if start is not None:
        _check_start(start, settings)
    began = {"start": "" if start is None else str(start), "most_edits": settings.most_edits}
    identity = plan.identity | {"composition": settings.method} | began
    with open_run(out, identity, plan.facts) as folder:
        if store is None:
            parts = None if out is None else out / "scores"
            store = ScoreStore(plan.model, plan.task, plan.settings, parts, progress)
        if settings.method == "greedy":
            kept, tried = _greedily(plan, settings, folder, store, progress)
        else:
            kept, tried = _guided(plan, start, settings, folder, store, progress)
        steps = check(tried, "steps")
        scores, by_step, test = _tested(store, plan.facts, kept)
        folder.write_table("composition", steps, "steps")
        folder.write_table("composition_scores", scores)
        folder.write_table("composition_by_step", by_step)
    return Composition(kept, steps, scores, by_step, test, plan.facts)


def _check_start(start: EditSpec, settings: CompositionSettings) -> None:
    if settings.method == "greedy":
        raise ValueError("start is for the method guided alone: the paper's order begins with the last layer")
    if start.kind != "laser":
        raise ValueError(f"start is {start}: expected LASER, whose sites and ranks are kept")
    blocks = Blocks.parse(settings.blocks)
    if (start.blocks, start.path, start.at) != (blocks, settings.path, settings.at):
        raise ValueError(f"start is {start}: expected the blocks, path and positions of the settings")
    if settings.most_edits is not None and len(start.sites) > settings.most_edits:
        raise ValueError(
            f"start has {len(start.sites)} edits, and most_edits is {settings.most_edits}: start with fewer"
        )


_KINDS = {"site": object, "rho": float, "rank_kept": float, "score": float, "loss": float, "n_not_finite": int}
_KINDS |= {"kept": bool, "edit": object}  # of the columns of `_row`


def _joined(kept: EditSpec | None, cell: EditSpec) -> EditSpec:
    """LASER at the sites that are kept and at that of a cell, which comes last."""
    if kept is None:
        return cell
    return replace(kept, sites=kept.sites + cell.sites, ranks=kept.ranks + cell.ranks, rho=None)


def _row(cell: EditSpec, row: Mapping[Any, Any], kept: bool, whole: EditSpec) -> dict[str, Any]:
    """One try: where, what all edits together reach on validation, whether it was kept, and all edits in one line."""
    return {
        "site": str(cell.site),
        "rho": cell.rho,
        "rank_kept": float(cell.ranks[0]),
        "score": float(row["score"]),
        "loss": float(row["loss"]),
        "n_not_finite": int(row["n_not_finite"]),
        "kept": kept,
        "edit": str(whole),
    }


def _greedily(
    plan: Plan, settings: CompositionSettings, folder: RunFolder, store: ScoreStore, progress: bool
) -> tuple[EditSpec | None, pd.DataFrame]:
    """The paper's order: from the last layer down and from the smallest ρ up (section 4 and table 3)."""
    facts = plan.facts.split("validation")

    def means(specs: Mapping[str, EditSpec | None]) -> pd.DataFrame:
        return summarise(store.scores(facts, specs, candidates=False))

    kept: EditSpec | None = None
    base = means({"base": None}).iloc[0]
    best = (float(base["score"]), -float(base["loss"]))
    frames: list[pd.DataFrame] = []
    sites = sorted(plan.by_site, key=lambda site: -site.layer)
    for site in progress_bar(sites, desc="composing", unit="site", disable=not progress):
        if kept is not None and len(kept.sites) == settings.most_edits:
            break
        frame = folder.read_part(str(site), "steps")
        if frame is None:
            # All can run together: a larger ρ replaces a smaller one, so it does not matter whether that one was kept
            together = {cell: _joined(kept, cell) for cell in reversed(plan.by_site[site])}
            rows = {str(row["edit"]): row for row in means({str(s): s for s in together.values()}).to_dict("records")}
            steps = []
            for cell, whole in together.items():
                row = rows[str(whole)]
                now = (float(row["score"]), -float(row["loss"]))
                is_best = row["n_not_finite"] == 0 and now > best
                best = now if is_best else best
                steps.append(_row(cell, row, bool(is_best), whole))
            frame = pd.DataFrame(steps)
            frame.insert(0, "step", range(before := sum(map(len, frames)), before + len(frame)))
            folder.write_part(str(site), frame, "steps")
        if len(chosen := frame[frame["kept"]]):
            kept = EditSpec.parse(chosen["edit"].iloc[-1])
            best = (float(chosen["score"].iloc[-1]), -float(chosen["loss"].iloc[-1]))
        frames.append(frame)
    return kept, pd.concat(frames, ignore_index=True)


def _guided(
    plan: Plan,
    start: EditSpec | None,
    settings: CompositionSettings,
    folder: RunFolder,
    store: ScoreStore,
    progress: bool,
) -> tuple[EditSpec | None, pd.DataFrame]:
    """Attribute at the edited model, propose, race, and add what wins, while validation improves.

    The first step is the race of `laser_interp.selection.race`. Each further step takes the gradients of the model with
    the edits so far, and tries sites that have no edit yet. The first edit has to beat the model as trained by score,
    then by loss. Each further edit has to raise the score. Because many edits are tried, it also has to raise the
    answers' log-probabilities by more than chance.

    Returns:
        What is kept, and the table of the finalists of every step, the chosen one last.
    """
    kept = start
    rows: list[dict[str, Any]] = []
    plan.choose_screening(folder)
    with progress_bar(desc="composing", unit=" prompts", unit_scale=True, disable=not progress) as bar:
        work = Work(plan, folder, Execution(), bar, progress, store)
        base = before = read_units(units := score_base(work), work.folder)
        work.remember(units, [None])
        if kept is not None:
            before = read_units(units := race_cells(work, [kept], "start").units, work.folder)
            work.remember(units, [kept])
            rho = kept.ranks[-1] / block_rank(plan.model, kept.sites[-1], kept.blocks)
            last = EditSpec(kept.sites[-1:], rho=rho, ranks=kept.ranks[-1:])
            rows.append(_row(last, cell_means(before, base).iloc[-1].to_dict(), True, kept))
        n_sites = len({*plan.by_site, *(kept.sites if kept is not None else ())})
        most = min(settings.most_edits or n_sites, n_sites)
        for number in range(most - (0 if kept is None else len(kept.sites))):
            free = [site for site in plan.by_site if kept is None or site not in kept.sites]
            single, _ = proposed(work, sites=free, kept=kept, name=f"proposal-{number}")
            together = {_joined(kept, cell): cell for cell in single}
            if not together:
                break
            at_least = before if kept is not None else None
            raced = race_cells(work, list(together), f"step-{number}", at_least=at_least)
            parts = read_units(raced.units, work.folder)
            scored = cell_means(parts[parts["cell"].isin([str(spec) for spec in raced.finalists])], base)
            scored = scored[scored["n_not_finite"] == 0]
            scored = scored.sort_values(["score", "loss"], ascending=[True, False], kind="stable")
            of_text = {str(spec): spec for spec in together}
            best = parts[parts["cell"] == scored["cell"].iloc[-1]] if len(scored) else parts[:0]
            improves = len(scored) > 0 and _improves(best, before, kept is not None)
            for place, row in enumerate(scored.to_dict("records")):
                whole = of_text[row["cell"]]
                rows.append(_row(together[whole], row, improves and place == len(scored) - 1, whole))
            if not improves:
                break
            kept, before = of_text[scored["cell"].iloc[-1]], best
            work.remember(raced.units, [kept])
    steps = pd.DataFrame(rows, columns=list(_KINDS)).astype(_KINDS)
    steps.insert(0, "step", range(len(steps)))
    return kept, steps


def _improves(frame: pd.DataFrame, before: pd.DataFrame, has_edits: bool) -> bool:
    now, then = ((rows["score"].mean(), rows["logprob"].mean()) for rows in (frame, before))
    if not has_edits:
        return now > then
    return now[0] > then[0] and is_worse(before, frame)


def _tested(
    store: ScoreStore, facts: FactSet, whole: EditSpec | None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Means of the model as trained and of all edits, what each edit adds, and the test scores under all of them."""
    ends: dict[str, EditSpec | None] = {"base": None} | ({} if whole is None else {"composed": whole})
    parts = {} if whole is None else {str(n): whole.of_sites(whole.sites[:n]) for n in range(1, len(whole.sites))}
    labelled = {"base": None} | parts | ends
    # A study asks the model as trained and the whole again, with answers ranked among those of their relation
    if "test" in facts.splits:
        store.scores(facts.split("test"), ends)
    splits = sorted(facts.splits, reverse=True)  # validation first
    scores = pd.concat([store.scores(facts.split(name), labelled, candidates=False) for name in splits])
    means = summarise(scores, ("edit", "split"))
    at = means.set_index(["edit", "split"])[["score", "loss"]].to_dict()
    tested = dict(tuple(scores[scores["split"] == "test"].groupby("edit", sort=False)))
    clusters = Clusters(tested["base"]["subject"]) if tested else None
    table = []
    before = "base"
    for n, (name, spec) in enumerate(labelled.items()):
        row: dict[str, Any] = {"n_edits": n, "edit": "" if spec is None else str(spec)}
        for split in ("validation", "test"):
            for metric in ("score", "loss"):
                row[f"{split}_{metric}"] = at[metric].get((name, split), math.nan)
        if clusters is not None and n:
            columns = [tested[label]["score"].to_numpy(float) for label in (before, name)]
            row |= with_interval("change", clusters.change(*columns))
        table.append(row)
        before = name
    shown = means[means["edit"].isin(list(ends))]
    shown = shown.sort_values("edit", key=lambda names: names != "base", kind="stable", ignore_index=True)
    test = scores[(scores["edit"] == "composed") & (scores["split"] == "test")]
    return shown, pd.DataFrame(table), test.reset_index(drop=True)
