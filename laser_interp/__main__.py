import sys

from laser_interp.cli.app import main

sys.exit(main())
