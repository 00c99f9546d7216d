"""When do the discarded components go wrong? An edit through the training of organisms, and of a control."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from laser_interp.cli.analyse import write_all
from laser_interp.facts.files import load_facts
from laser_interp.facts.shipped import SHIPPED
from laser_interp.organism.checkpoint_corpus import documents_per_step
from laser_interp.statistics.formatting import interval
from laser_interp.studies.training_checkpoints import checkpoints
from laser_interp.studies.training_trajectory import counts_so_far, trajectory

_SAID = {"base": "as trained", "laser": "under the edit"}


def of_history(history: str, edit: str, *, progress: bool = False) -> pd.DataFrame:
    """The table `trajectory` of one training, and the slopes of its edit's change; see `li.trajectory`."""
    asked = checkpoints(history)
    facts = load_facts(history if history in SHIPPED else Path(history) / "facts.jsonl")
    per_step = documents_per_step(asked[-1].source)
    counts = None if per_step is None else counts_so_far(asked, facts, asked[-1].source, per_step, progress=progress)
    found = trajectory(asked, facts, counts, edit, progress=progress)
    changes = found.tables["trajectory_changes"]
    whole = changes[(changes["part"] == "whole")].set_index(["step", "edit"])[["change", "lo", "hi"]]
    table = found.tables["trajectory"].join(whole.add_prefix("change_"), on=["step", "edit"])
    recall = found.tables["trajectory_recall"].dropna(subset=["base", "laser"])
    sooner, later = (recall["laser"] < recall["base"]).sum(), (recall["laser"] > recall["base"]).sum()
    of = {"history": Path(history).name, "recalled": len(recall), "sooner": int(sooner), "later": int(later)}
    return table.assign(**of)


def in_words(table: pd.DataFrame) -> Sequence[str]:
    """What was found, a line for each training."""
    told = []
    for history, rows in table.groupby("history", sort=False):
        at: Any = rows.set_index(["step", "edit", "facts"])
        first, last = rows["step"].min(), rows["step"].max()
        shares = []
        for facts in ("frequent", "rare"):
            for edit in ("base", "laser"):
                of = rows[(rows["facts"] == facts) & (rows["edit"] == edit)]
                below = of.loc[of["generic_ahead"] < 0.5, "step"]
                end = at.loc[(last, edit, facts)]
                shown = interval(*(100 * end[f"generic_ahead{x}"] for x in ("", "_lo", "_hi")), form=".0f")
                when = f"from step {below.iloc[0]}" if len(below) else "never"
                shares.append(f"{facts} facts, {_SAID[edit]}: below half {when}, {shown} % at the end")
        nats = [[-at.loc[(step, edit, "all"), "generic"] for step in (first, last)] for edit in ("base", "discarded")]
        told.append(
            f"{history}: a generic word is ahead of the answer on prompts of {'; '.join(shares)}. "
            f"Generic words cost the answer {nats[0][0]:.2f} nats at step {first} and {nats[0][1]:.2f} at step {last} "
            f"as trained, and {nats[1][0]:.2f} and {nats[1][1]:.2f} in the discarded part alone. Of "
            f"{rows['recalled'].iloc[0]} prompts that are answered with and without the edit, it answers "
            f"{rows['sooner'].iloc[0]} at an earlier checkpoint and {rows['later'].iloc[0]} at a later one."
        )
    return told


def main(*histories: str, edit: str = "3.in:0.05", out: Path = Path("runs/training")) -> None:
    """Follow an edit through the training of organisms, and of a control.

    For example: laser-interp analyse training organism organism-control

    Args:
        histories: organism, organism-control, or folders of laser-interp organism train --checkpoints 12.
        edit: The edit, the same at all checkpoints of all trainings.
        out: Folder for the table and the figure.
    """
    names = histories or ("organism", "organism-control")
    table = pd.concat([of_history(name, edit, progress=True) for name in names], ignore_index=True)
    about = {"edit": edit, "command": f"laser-interp analyse training {' '.join(Path(n).name for n in names)}"}
    write_all(out, {"training": table}, "\n\n".join(in_words(table)), about)
