"""The checkpoints of a training: kept folders, the shipped history of an organism, or revisions on the hub."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

from laser_interp.choices import whole_number
from laser_interp.facts.shipped import SHIPPED
from laser_interp.storage.checksums import name_size_and_ends

AT_MOST = 12  # checkpoints on the logarithmic scale


@dataclass(frozen=True)
class Checkpoint:
    """A model at one step of its training.

    Attributes:
        source, revision: as `li.load_model` takes them.
        step: how many steps training had made.
    """

    source: str
    revision: str | None
    step: int

    @property
    def name(self) -> str:
        """As figures name it: a hub id and its revision, or the last two names of a folder."""
        folder = Path(self.source)
        return "/".join(folder.resolve().parts[-2:]) if folder.is_dir() else str(self)

    @property
    def fingerprint(self) -> str:
        """What tells two states of a folder apart: its weights' files, by size and both ends; "" of a hub id."""
        folder = Path(self.source)
        if not folder.is_dir():
            return ""
        digest = hashlib.sha256()
        for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
            digest.update(name_size_and_ends(path))
        return digest.hexdigest()

    def __str__(self) -> str:
        return self.source if self.revision is None else f"{self.source}@{self.revision}"

    @classmethod
    def of(cls, described: Checkpoint | str | Path | tuple[str, str]) -> Checkpoint:
        """From a folder, a name, `(hub id, revision)`, or "ID@REVISION". The step is the number in its name.

        Raises:
            ValueError: there is no number, so that the step is not known.
        """
        if isinstance(described, Checkpoint):
            return described
        if isinstance(described, tuple) and len(described) == 2:
            source, revision = map(str, described)
        elif not isinstance(described, str | Path):
            raise ValueError(f"{described!r} is no checkpoint: expected a folder, ID@REVISION, or (hub id, revision)")
        else:
            source, _, revision = str(described).partition("@")
            if Path(described).is_dir():
                source, revision = str(described), ""
        name = revision or Path(source).name
        found = re.search(r"(?:step|checkpoint)[-_]?(\d+)", name)
        if found is None and (revision or Path(source).is_dir()):  # in a model's name, 410m is its size
            found = re.search(r"(\d+)\D*$", name)
        if found is None:
            raise ValueError(
                f"the step of the checkpoint {name!r} is not known: expected a name as step1000 or checkpoint-500, "
                "or li.types.Checkpoint(source, revision, step)"
            )
        return cls(source, revision or None, int(found[1]))


# Pattern of hub ids -> the steps, and how the revision of a step is called. Pythia: the README of EleutherAI/pythia.
# OLMo 2 1B: configs/official-0425 of allenai/OLMo; the tokens are rounded up, as in all names that were seen.
_KNOWN = (
    ("eleutherai/pythia-*", (0, *(2**i for i in range(10)), *range(1000, 143_001, 1000)), lambda step: f"step{step}"),
    (
        "allenai/olmo-2-0425-1b",
        (0, 300, *range(10_000, 1_900_001, 10_000), 23_100, 66_200, 1_907_359),
        lambda step: f"stage1-step{step}-tokens{math.ceil(step * 2_097_152 / 1e9)}B",
    ),
)


def checkpoints(source: str | Path, *, steps: str | Iterable[int] = "log") -> list[Checkpoint]:
    """The checkpoints of a training that are there, in order.

    Args:
        source: a folder that holds folders checkpoint-STEP, as transformers' trainer and `laser-interp organism train`
            keep them; "organism" or "organism-control", whose history comes with the package; or a hub id. The names
            of Pythia's and of OLMo 2 1B's revisions are known without a network; of others the hub is asked.
        steps: "log" for at most twelve on a logarithmic scale, "all", or the steps.

    Raises:
        FileNotFoundError: none are there, or the hub that should list them cannot be reached.
        ValueError: steps that are not there.

    Example:
        >>> [str(one) for one in li.checkpoints("EleutherAI/pythia-410m", steps=[512, 143000])]
        ['EleutherAI/pythia-410m@step512', 'EleutherAI/pythia-410m@step143000']
    """
    several = sorted(_all(source), key=lambda one: one.step)
    there = {one.step: one for one in several}
    if len(there) < len(several):
        twice = next(one for one, other in pairwise(several) if one.step == other.step)
        raise ValueError(f"{source} has several checkpoints of step {twice.step}: give the ones you mean, in a list")
    if not there:
        raise FileNotFoundError(f"{source} has no checkpoints: expected folders checkpoint-STEP, or a hub id")
    if steps == "all":
        return list(there.values())
    if steps == "log":
        return [there[step] for step in _on_log_scale(list(there))]
    if isinstance(steps, str) or not isinstance(steps, Iterable):
        raise ValueError(f"steps is {steps!r}: expected 'log', 'all' or numbers")
    asked = [whole_number("a step", step) for step in steps]
    if missing := [step for step in asked if step not in there]:
        near = ", ".join(map(str, sorted(there, key=lambda step: abs(step - missing[0]))[:3]))
        raise ValueError(f"{source} has no checkpoint of step {missing[0]}: the nearest are {near}")
    return [there[step] for step in sorted(set(asked))]


def _on_log_scale(steps: Sequence[int]) -> list[int]:
    """At most `AT_MOST` of them: the first, the last, and those nearest to equal ratios between."""
    if len(steps) <= AT_MOST:
        return list(steps)
    logs = [math.log(max(step, 0.5)) for step in steps]
    wanted = [logs[0] + (logs[-1] - logs[0]) * i / (AT_MOST - 1) for i in range(AT_MOST)]
    return sorted({min(steps, key=lambda step: abs(math.log(max(step, 0.5)) - at)) for at in wanted})


def _all(source: str | Path) -> list[Checkpoint]:
    name = str(source)
    if name in SHIPPED:
        from laser_interp.organism.history import unpacked

        source = unpacked(name)
    if (path := Path(source).expanduser()).is_dir():
        return [Checkpoint.of(folder) for folder in path.glob("checkpoint-*") if (folder / "config.json").is_file()]
    for pattern, steps, revision in _KNOWN:
        if fnmatch(name.lower(), pattern):
            return [Checkpoint(name, revision(step), step) for step in steps]
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"no folder {name!r}: expected a folder of checkpoints, a hub id, or 'organism'")
    from huggingface_hub import list_repo_refs

    try:
        branches = list_repo_refs(name).branches
    except Exception as error:  # of the network, and of the hub
        raise FileNotFoundError(
            f"the revisions of {name!r} are not known without a network, and the hub did not list them "
            f"({type(error).__name__}): give (hub id, revision) pairs"
        ) from error
    return [Checkpoint.of((name, branch.name)) for branch in branches if re.search(r"step[-_]?\d", branch.name)]
