"""`python -m benchmarks NAME [--json FILE]`."""

import argparse
import importlib

NAMES = ("engine", "count", "attribution", "search", "frequency", "tables")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    for name in NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        one = commands.add_parser(name, help=(module.__doc__ or name).splitlines()[0])
        module.arguments(one)
        one.set_defaults(run=module.main)
    args = parser.parse_args()
    args.run(args)
