"""Where results are kept from one run to the next: factorisations, and answers of counting services."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """$LASER_INTERP_CACHE, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("LASER_INTERP_CACHE") or platformdirs.user_cache_dir("laser-interp"))
