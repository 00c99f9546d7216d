"""Train a model organism from scratch.

For example: laser-interp organism train --alpha 0.35 --seed 1 --out my-organism
"""

from pathlib import Path

from cyclopts import App

from laser_interp.cli.app import COMMANDS
from laser_interp.cli.options import Output

organism = App(name="organism", suppress_keyboard_interrupt=False, **COMMANDS["organism"])


@organism.command
def train(
    *,
    out: Path,
    alpha: float = 0.35,
    seed: int = 1,
    steps: int = 2500,
    stop_at: int | None = None,
    experts: int = 0,
    checkpoints: int = 0,
    output: Output = Output(),
) -> None:
    """Train an organism from scratch, in about three minutes.

    Args:
        out: Folder for the checkpoint; it must not exist.
        alpha: Share of a fact's sentences that continue with a generic word.
        seed: Seed of facts, text, weights and batches.
        steps: Number of training steps that the schedule is made for.
        stop_at: Stop after this many steps; the control organism was stopped at 300.
        experts: Experts in each layer, of which two compute each token. 0: one MLP.
        checkpoints: Checkpoints to keep on the way, on a logarithmic scale, in folders checkpoint-STEP.
    """
    from laser_interp.organism.corpus import CorpusSettings
    from laser_interp.organism.training import TrainingSettings
    from laser_interp.organism.training import train as run

    corpus = CorpusSettings(seed=seed, alpha=alpha)
    training = TrainingSettings(seed=seed, steps=steps, stop_at=stop_at, n_experts=experts, n_checkpoints=checkpoints)
    folder = run(corpus, training, out, progress=not output.quiet)
    output.say(
        {"checkpoint": str(folder)},
        f"The checkpoint is in {folder}; load it with laser_interp.load_model({str(folder)!r}).",
    )
