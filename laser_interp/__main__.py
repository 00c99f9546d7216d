import sys

from laser_interp.cli import main

sys.exit(main())
