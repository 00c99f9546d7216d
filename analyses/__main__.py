import importlib
import sys

NAMES = (
    "layer_sweep", "rare_facts", "discarded_answers", "controls", "directions", "transfer", "frequency_trap",
    "paper_table",
)  # fmt: skip


def main(argv: list[str]) -> int:
    """Run one analysis; `python -m analyses NAME --help` shows its options."""
    if not argv or argv[0] not in NAMES:
        print(f"usage: python -m analyses NAME [options], NAME one of {' '.join(NAMES)}", file=sys.stderr)
        return 0 if argv in (["-h"], ["--help"]) else 2
    module = importlib.import_module(f"analyses.{argv[0]}")
    try:
        module.main(argv[1:])
    except (ValueError, OSError) as error:
        print(f"analyses {argv[0]}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
