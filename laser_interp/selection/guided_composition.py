"""Composing by gradients: attribute at the edited model, propose, race, add what wins while validation improves.

The first step is the race of `laser_interp.selection.race`. Each further step takes the gradients of the model with
the edits so far, and tries sites that have no edit yet. The first edit has to beat the model as trained by score, then
by loss. Each further edit has to raise the score. Because many edits are tried, it also has to raise the answers'
log-probabilities by more than chance.
"""

from dataclasses import replace

import pandas as pd

from laser_interp.edits.blocks import Blocks
from laser_interp.edits.sites import Site
from laser_interp.edits.spectra import block_rank
from laser_interp.progress import progress_bar
from laser_interp.selection.cells import Cell
from laser_interp.selection.composition_steps import cell_of, in_one_line, kept_after, no_steps, step_row
from laser_interp.selection.execution import Execution, PartStore
from laser_interp.selection.plan import Plan
from laser_interp.selection.race import advancing, is_worse, proposed, race_cells, race_table, read_units, score_base
from laser_interp.storage.run_folder import RunFolder


def compose_by_gradients(
    plan: Plan, start: dict[Site, int], folder: RunFolder | None, progress: bool, *, most: int | None = None
) -> tuple[dict[Site, int], pd.DataFrame]:
    """The rank that is kept at each site, and the table of the finalists of every step, the chosen one last.

    Args:
        plan: of a race, with the facts and the sites.
        start: the ranks of edits that were chosen before and are kept.
        most: the largest number of edits, counting those of `start`.
    """
    store, execution = PartStore(folder), Execution()
    blocks = Blocks.parse(plan.settings.blocks)
    ranks = dict(start)
    frames: list[pd.DataFrame] = []
    with progress_bar(desc="composing", unit=" prompts", unit_scale=True, disable=not progress) as bar:
        advance = advancing(bar, plan)
        base = score_base(plan, store, execution, advance)
        before = read_units(base, store)
        if ranks:
            cell = cell_of(ranks, blocks)
            _, units, _, _ = race_cells(plan, [cell], "start", store, execution, advance)
            before = read_units(units, store)
            now = race_table(plan, [cell], units, store, base).iloc[-1].to_dict()
            *_, (last, rank) = ranks.items()
            rho = rank / block_rank(plan.model, last, blocks)
            frames.append(pd.DataFrame([step_row(last, rho, rank, now, True, in_one_line(cell))]))
        n_sites = len(plan.by_site)
        for number in range((n_sites if most is None else min(most, n_sites)) - len(ranks)):
            free = [site for site in plan.by_site if site not in ranks]
            edit = cell_of(ranks, blocks).edit(plan.model) if ranks else None
            single, _ = proposed(plan, folder, progress, sites=free, edit=edit, name=f"proposal-{number}")
            together = {_with(ranks, cell): cell for cell in single}
            if not together:
                break
            finalists, units, _, _ = race_cells(
                plan, list(together), f"step-{number}", store, execution, advance, at_least=before if ranks else None
            )
            parts = read_units(units, store)
            scored = race_table(plan, finalists, units, store, base)
            scored = scored[(scored["kind"] != "base") & (scored["n_not_finite"] == 0)]
            scored = scored.sort_values(["score", "loss"], ascending=[True, False], kind="stable")
            rows = []
            for place, row in enumerate(scored.to_dict("records")):
                both = Cell.parse(row["cell"])
                added = together[both]
                is_best = place == len(scored) - 1 and _improves(
                    parts[parts["cell"] == row["cell"]], before, bool(ranks)
                )
                rows.append(step_row(added.site, added.rho, added.ranks[0], row, is_best, in_one_line(both)))
            frames.append(pd.DataFrame(rows))
            if not rows or not rows[-1]["kept"]:
                break
            ranks = kept_after(rows, ranks)
            before = parts[parts["cell"] == scored.iloc[-1]["cell"]]
    steps = pd.concat(frames, ignore_index=True) if frames else no_steps()
    steps.insert(0, "step", range(len(steps)))
    return ranks, steps


def _improves(frame: pd.DataFrame, before: pd.DataFrame, has_edits: bool) -> bool:
    now, then = ((rows["score"].mean(), rows["logprob"].mean()) for rows in (frame, before))
    if not has_edits:
        return now > then
    return now[0] > then[0] and is_worse(before, frame)


def _with(ranks: dict[Site, int], cell: Cell) -> Cell:
    if not ranks:
        return cell
    return replace(cell, sites=(*ranks, cell.site), ranks=(*ranks.values(), *cell.ranks), rho=None)
