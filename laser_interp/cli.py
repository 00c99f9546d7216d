"""The command line: `laser-interp COMMAND`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def _reproduce(args: argparse.Namespace) -> None:
    from laser_interp.reproduce import reproduce

    reproduce(args.out, progress=not args.quiet)
    print((Path(args.out) / "SUMMARY.md").read_text(encoding="utf-8"))
    print(f"All numbers: {Path(args.out) / 'summary.json'}")


def _train(args: argparse.Namespace) -> None:
    from laser_interp.organism.corpus import CorpusSettings
    from laser_interp.organism.train import TrainingSettings, train

    folder = train(
        CorpusSettings(seed=args.seed, alpha=args.alpha),
        TrainingSettings(seed=args.seed, steps=args.steps, stop_at=args.stop_at),
        args.out,
        progress=not args.quiet,
    )
    print(f"The checkpoint is in {folder}; load it with laser_interp.load_model({str(folder)!r}).")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="laser-interp", description="An instrument for LASER's rank reductions.")
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("reproduce", help="the paper's argument on the model organism, in about a minute")
    one.add_argument("--out", default="runs/organism", help="folder for the results (default: %(default)s)")
    one.add_argument("--quiet", action="store_true", help="no progress bars")
    one.set_defaults(run=_reproduce)

    organism = commands.add_parser("organism", help="the model organism").add_subparsers(dest="verb", required=True)
    one = organism.add_parser("train", help="train an organism from scratch (about 3 minutes)")
    one.add_argument("--out", required=True, help="folder for the checkpoint; must not exist")
    one.add_argument("--alpha", type=float, default=0.35, help="share of generic continuations (default: %(default)s)")
    one.add_argument("--seed", type=int, default=1, help="of facts, text, weights and batches (default: %(default)s)")
    one.add_argument("--steps", type=int, default=2500, help="length of the schedule (default: %(default)s)")
    one.add_argument("--stop-at", type=int, default=None, help="stop early after so many steps (the control: 300)")
    one.add_argument("--quiet", action="store_true", help="no progress bar")
    one.set_defaults(run=_train)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors a user can mend are one line, without a traceback."""
    args = _parser().parse_args(argv)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"laser-interp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "laser-interp: interrupted; what was computed is kept, and the same command goes on from it",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
