"""Which truncation helps? Change of loss and accuracy by layer, matrix and ρ (paper, section 4 and figure 2)."""

from __future__ import annotations

import pandas as pd

from analyses import Question, Tables, run


def tables(question: Question) -> Tables:
    """Change of loss and accuracy by layer, matrix and rho."""
    sweep = question.sweep
    changes = pd.concat([sweep.changes(split) for split in sorted(set(sweep.cells["split"]))], ignore_index=True)
    return {"layer_sweep": sweep.cells, "layer_sweep_changes": changes}


def main(argv: list[str]) -> Tables:
    return run("layer_sweep", tables, argv)
