"""Published sets of facts and tasks, each read from the file its authors publish.

`load_task("counterfact", "counterfact.json")` gives facts to be scored, how they are scored, and what was
dropped and why. One entry of `SOURCES` describes each set; nothing is downloaded unless a set is asked for by
name alone.
"""

from laser_interp.datasets.sources import KINDS, PROTOCOLS, SOURCES, Source, Task, load_task, own_task

__all__ = ["KINDS", "PROTOCOLS", "SOURCES", "Source", "Task", "load_task", "own_task"]
