"""The command line: `laser-interp COMMAND`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
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


def _compress(args: argparse.Namespace) -> None:
    from laser_interp.compress import compress, export, peak_memory
    from laser_interp.edit import parse_laser
    from laser_interp.model import load_model

    model = load_model(args.model, revision=args.revision, device=args.device)
    edit = parse_laser(model, args.edit)
    if args.dense:
        print(f"The edited model, dense, is in {export(model, edit, args.out)}; transformers loads it.")
        return
    print(compress(model, edit, args.out).to_string(index=False))
    print(f"The compressed model is in {args.out}; laser_interp.load_model({args.out!r}) loads it.")
    if args.measure:
        with tempfile.TemporaryDirectory() as folder:
            before = peak_memory(model.save_checkpoint(Path(folder) / "before"))
        after = peak_memory(args.out)
        print(f"Peak memory to load and run: {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="laser-interp", description="An instrument for LASER's rank reductions.")
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("reproduce", help="the paper's argument on the model organism, in about a minute")
    one.add_argument("--out", default="runs/organism", help="folder for the results (default: %(default)s)")
    one.add_argument("--quiet", action="store_true", help="no progress bars")
    one.set_defaults(run=_reproduce)

    one = commands.add_parser("compress", help="store an edited model smaller, as thin factors, or export it dense")
    one.add_argument("--model", required=True, help="shipped name, folder or hub id")
    one.add_argument("--edit", required=True, help="SITE:RHO, as in 27.in:0.01; several joined by +; *.mlp:0.1 for all")
    one.add_argument("--out", required=True, help="folder for the checkpoint; must not exist")
    one.add_argument("--dense", action="store_true", help="a plain transformers checkpoint with the truncated weights")
    one.add_argument("--measure", action="store_true", help="also measure the peak memory before and after")
    one.add_argument("--revision", default=None, help="of a hub id")
    one.add_argument("--device", default="auto", help="for the factorisation (default: %(default)s)")
    one.set_defaults(run=_compress)

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
