"""`python -m laser_interp` is `laser-interp`."""

import sys

from laser_interp.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
