"""Run the Python blocks of the README with whatever installation runs this file; `make release-check` does."""

import re
import sys
from pathlib import Path

readme = Path(__file__).parents[1] / "README.md"
scope: dict[str, object] = {}
blocks = re.findall(r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
for block in blocks:
    if "HostedInfiniGram(" not in block:
        exec(compile(block, "README.md", "exec"), scope)
import laser_interp  # noqa: E402

sys.exit(None if "site-packages" in str(laser_interp.__file__) else f"{laser_interp.__file__} is not the installed one")
