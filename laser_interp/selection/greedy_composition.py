"""Composing in the paper's order: from the last layer down and from the smallest ρ up (section 4 and table 3)."""

from collections.abc import Mapping

import pandas as pd

from laser_interp.edits.blocks import Blocks
from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import Site
from laser_interp.edits.spectra import block_rank
from laser_interp.facts.tasks import Task
from laser_interp.models.model import Model
from laser_interp.progress import progress_bar
from laser_interp.scoring.scorer import Scorer
from laser_interp.scoring.scores import summarise
from laser_interp.selection.composition_steps import cell_of, in_one_line, kept_after, step_row
from laser_interp.selection.grid import ranks_of
from laser_interp.selection.plan import sites_of
from laser_interp.selection.settings import CompositionSettings
from laser_interp.storage.run_folder import RunFolder


def compose_greedily(
    model: Model, task: Task, settings: CompositionSettings, folder: RunFolder | None, progress: bool
) -> tuple[dict[Site, int], pd.DataFrame]:
    """What is kept at each site, and every try."""
    sites = sorted(sites_of(model, settings), key=lambda site: -site.layer)
    blocks = Blocks.parse(settings.blocks)
    validation = Scorer(model, task.keep(task.facts.split("validation")), candidates=False)

    def means(edits: Mapping[str, Edit | None]) -> pd.DataFrame:
        labelled = validation.run(edits, engine=settings.engine, memory=settings.memory)
        return summarise(pd.concat([frame for _, frame in labelled], ignore_index=True))

    ranks: dict[Site, int] = {}
    base = means({"base": None}).iloc[0]
    best = (float(base["score"]), -float(base["loss"]))
    frames: list[pd.DataFrame] = []
    for site in progress_bar(sites, desc="composing", unit="site", disable=not progress):
        if len(ranks) == settings.most_edits:
            break
        frame = folder.read_part(str(site), "steps") if folder is not None else None
        if frame is None:
            of_rank, _ = ranks_of(site, block_rank(model, site, blocks), settings.rhos)
            tried = sorted(of_rank.items())  # the smallest ρ first
            # All can run together: a larger ρ replaces a smaller one, so it does not matter whether that one was kept.
            together: dict[str, Edit | None] = {
                str(rank): cell_of({**ranks, site: rank}, blocks).edit(model) for rank, _ in tried
            }
            rows = {str(row["edit"]): row for row in means(together).to_dict("records")}
            steps = []
            for rank, rho in tried:
                row = rows[str(rank)]
                now = (float(row["score"]), -float(row["loss"]))
                kept = row["n_not_finite"] == 0 and now > best
                best = now if kept else best
                edit = in_one_line(cell_of({**ranks, site: rank}, blocks))
                steps.append(step_row(site, rho, rank, row, bool(kept), edit))
            frame = pd.DataFrame(steps)
            frame.insert(0, "step", range(len(frame)))
            frame["step"] += sum(map(len, frames))
            if folder is not None:
                folder.write_part(str(site), frame, "steps")
        records = frame.to_dict("records")
        ranks = kept_after(records, ranks)  # type: ignore[arg-type]
        if chosen := [row for row in records if row["kept"]]:
            best = (float(chosen[-1]["score"]), -float(chosen[-1]["loss"]))
        frames.append(frame)
    return ranks, pd.concat(frames, ignore_index=True)
