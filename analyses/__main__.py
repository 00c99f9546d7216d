"""`python -m analyses NAME` is `laser-interp analyse NAME`."""

import sys

from laser_interp.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["analyse", *sys.argv[1:]]))
