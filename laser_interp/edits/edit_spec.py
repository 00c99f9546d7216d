"""The description of an edit: what is done, where, and along which path, without a model and without its arrays.

Searches, compositions, studies, tables and the command line hold edits as an `EditSpec`. Its text names all of it, and
`EditSpec.edit` is the one place in which a model's edit is made from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

from laser_interp.choices import Path, Position, check_choice
from laser_interp.edits.blocks import Blocks
from laser_interp.edits.constructors import band, laser, zeroed
from laser_interp.edits.constructors import gains as make_gains
from laser_interp.edits.controls import CONTROLS
from laser_interp.edits.edit import Edit
from laser_interp.edits.placement import Prompts
from laser_interp.edits.sites import Site, resolve
from laser_interp.facts.fact_set import FactSet
from laser_interp.models.model import Model

CHOSEN_KINDS = ("laser", "gains")  # edits that a search chooses among; others are made from them
_KINDS = (*CHOSEN_KINDS, "inject", "band", *CONTROLS)
_NAMES = ("rho", "rank", "blocks", "alpha", "start", "stop", "seed", "path", "at", "sha256")


@dataclass(frozen=True)
class EditSpec:
    """One edit, of one site or several.

    Its text lists its attributes, as in `3.in laser rho=0.05 rank=3`, or for several sites
    `3.in+3.out laser rank=1+2`.

    Attributes:
        sites: what is edited.
        kind: "laser", "gains", "inject", "band", or the name of a control. Injections and controls are made from LASER
            of these ranks, or from these gains.
        rho: fraction of rank kept, as it was asked for, even if the rank was then lifted to 1.
        ranks: the rank that LASER keeps at each site; with blocks, the rank of each block.
        blocks: how each matrix is divided; see `li.Blocks`.
        alpha: strength of the injected part.
        start, stop: the band that is kept: the directions `start <= i < stop`.
        seed: of a random control.
        path: the path along which the edit acts; see `Edit.via`.
        at: the positions of prompts at which it acts; None is everywhere. See `Edit.at`.
        gains: for each site its gains, if these are no ranks, as learned ones. The text names them by their hash alone.

    Example:
        >>> str(li.EditSpec(li.Site(3, "in"), rho=0.05, ranks=3))
        '3.in laser rho=0.05 rank=3'
    """

    sites: tuple[Site, ...]
    kind: str = "laser"
    rho: float | None = None
    ranks: tuple[int, ...] = ()
    alpha: float | None = None
    start: int | None = None
    stop: int | None = None
    seed: int | None = None
    blocks: Blocks | None = None
    path: Path = "network"
    at: Position | None = None
    gains: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.sites, Site):
            object.__setattr__(self, "sites", (self.sites,))
        if isinstance(self.ranks, int):
            object.__setattr__(self, "ranks", (self.ranks,))
        if self.kind not in _KINDS:
            raise ValueError(f"the kind {self.kind!r} is not known")
        if self.ranks and len(self.ranks) != len(self.sites):
            raise ValueError(f"{len(self.sites)} sites and {len(self.ranks)} ranks: expected one rank a site")
        check_choice("path", self.path, Path)
        if self.at is not None:
            check_choice("at", self.at, Position)

    @property
    def site(self) -> Site:
        """The one site of most edits."""
        (site,) = self.sites
        return site

    @property
    def rank(self) -> int | None:
        """The rank kept, where there is one site."""
        return self.ranks[0] if len(self.ranks) == 1 else None

    def __str__(self) -> str:
        values: dict[str, Any] = {name: getattr(self, name, None) for name in _NAMES}
        values["rank"] = "+".join(map(str, self.ranks)) or None
        values["sha256"] = hashlib.sha256(repr(self.gains).encode()).hexdigest()[:12] if self.gains else None
        shown = [f"{k}={v}" for k, v in values.items() if v is not None and (k, v) != ("path", "network")]
        return " ".join(["+".join(map(str, self.sites)), self.kind, *shown])

    @classmethod
    def parse(cls, text: str) -> EditSpec:
        """Read what `str` wrote. Gains that are no ranks are not in the text: an edit cannot be made from it then.

        Raises:
            ValueError: text of another form.
        """
        sites, _, rest = text.partition(" ")
        kind, *pairs = rest.split() or [""]
        values: dict[str, Any] = {}
        try:
            for pair in pairs:
                name, _, value = pair.partition("=")
                if name not in _NAMES:
                    raise ValueError(f"{name!r} is none of {', '.join(_NAMES)}")
                if sum(other.startswith(f"{name}=") for other in pairs) > 1:
                    raise ValueError(f"{name} is given twice")
                if name == "blocks":
                    values["blocks"] = Blocks.parse(value)
                elif name == "rank":
                    values["ranks"] = tuple(int(rank) for rank in value.split("+"))
                elif name in ("path", "at"):
                    values[name] = value
                elif name != "sha256":
                    values[name] = float(value) if name in ("rho", "alpha") else int(value)
            return cls(tuple(Site.parse(site) for site in sites.split("+")), kind, **values)
        except ValueError as error:
            raise ValueError(f"{text!r} describes no edit: {error}") from None

    @classmethod
    def of(cls, edit: Edit) -> EditSpec:
        """The description of an edit that keeps directions of its matrices: LASER, or other gains.

        Raises:
            ValueError: the edit adds a matrix to a weight, is patched, or divides its matrices in several ways.
        """
        sites, parts = tuple(edit.parts), tuple(edit.parts.values())
        patched = edit.placement is not None and edit.placement.added is not None
        if patched or any(part.added is not None for part in parts):
            raise ValueError(f"{edit!r} does more than to keep directions of its matrices: it cannot be described")
        (blocks, *others) = {part.spectrum.blocks for part in parts}
        if others:
            raise ValueError(f"{edit!r} divides its matrices in several ways: one description has one")
        how: dict[str, Any] = {"blocks": blocks, "path": edit.path}
        how["at"] = None if edit.placement is None else edit.placement.name
        if edit.kind != "laser":
            return cls(sites, "gains", gains=tuple(tuple(part.gains.tolist()) for part in parts), **how)
        ranks = [int(part.spectrum.place_in_block[part.gains != 0].max()) + 1 for part in parts]
        return cls(sites, "laser", rho=edit.rho, ranks=tuple(ranks), **how)

    def of_kind(self, kind: str, **values: Any) -> EditSpec:
        """An edit of another kind at the same sites and ranks."""
        return replace(self, kind=kind, **values)

    def of_sites(self, sites: Sequence[Site]) -> EditSpec:
        """The same edit at some of its sites, in its own order."""
        kept = [i for i, site in enumerate(self.sites) if site in sites]
        parts = {
            name: tuple(of[i] for i in kept) for name in ("sites", "ranks", "gains") if (of := getattr(self, name))
        }
        return replace(self, **parts, rho=self.rho if len(kept) == len(self.sites) else None)

    def edit(self, model: Model, prompts: Prompts | None = None) -> Edit:
        """The edit itself.

        Args:
            prompts: the facts or prompts on which it acts, if it acts at chosen positions; see `Edit.at`.

        Raises:
            ValueError: it acts at chosen positions, and there are no prompts; its gains are not known; or the model
                has no such site.
        """
        made = self._everywhere(model).via(self.path)
        if self.at is None:
            return made
        if prompts is None:
            raise ValueError(f"{str(self)!r} acts at chosen positions: give the facts whose prompts it acts on")
        return made.at(model, self.at, prompts)

    def _everywhere(self, model: Model) -> Edit:
        if self.kind == "zeroed":
            return zeroed(model, self.sites)
        if self.kind == "band":
            if self.start is None or self.stop is None:
                raise ValueError(f"{str(self)!r} is a band without its ends: expected start=10 stop=50")
            return band(model, self.sites, self.start, self.stop, blocks=self.blocks)
        kept = self._kept(model)
        if self.kind in CHOSEN_KINDS:
            return kept
        if self.kind == "inject":
            if self.alpha is None:
                raise ValueError(f"{str(self)!r} has no strength: expected alpha=0.5")
            return kept.inject(self.alpha)
        return CONTROLS[self.kind].make(model, kept, self.seed or 0)

    def _kept(self, model: Model) -> Edit:
        """LASER at the sites and ranks, or the gains; edits of other kinds are made from it."""
        if self.gains:
            of_site = dict(zip(self.sites, self.gains, strict=True))
            return make_gains(model, of_site, blocks=self.blocks)  # type: ignore[arg-type]
        text = repr(str(self))
        if not self.ranks and self.kind == "gains":
            raise ValueError(f"the gains of {text} are not in its text: take the edit from the search, or its file")
        if not self.ranks:
            raise ValueError(f"{text} names no rank: expected rank=3, or for a fraction SITE:RHO, as in 3.in:0.05")
        edits = [
            laser(model, site, rank=rank, blocks=self.blocks) for site, rank in zip(self.sites, self.ranks, strict=True)
        ]
        return replace(reduce(add, edits), rho=self.rho)  # the ρ that was asked for, even if the rank was lifted to 1


class Described:
    """What was chosen, as a description in `cell`, and the `facts` on whose prompts it acts."""

    cell: EditSpec
    facts: FactSet | None

    def edit(self, model: Model, prompts: Prompts | None = None) -> Edit:
        """The edit, made for a model with the same weights.

        Args:
            prompts: other prompts than those of `facts`, if it acts at chosen positions.
        """
        return self.cell.edit(model, self.facts if prompts is None else prompts)


def describe_edits(model: Model, text: str) -> EditSpec:
    """One line as a description: SITE:RHO, SITE:rank=K or SITE:rate=R, as in "3.in:0.05", several joined by "+".

    A rate is that of the published scripts: 9.9 is ρ = .01. What `str` of a description wrote is read too.

    Blocks follow after a colon, as in "3.in:0.05:4-outputs".

    Raises:
        ValueError: text of another form, or a site or ρ that `laser` refuses.
    """
    if ":" not in text and " " in text.strip():
        spec = EditSpec.parse(text.strip())
        resolve(model, spec.sites)
        return spec
    lasers = [_laser(model, part.strip(), text) for part in text.split("+")]
    sites = [site for one in lasers for site in one.parts]
    if len(set(sites)) < len(sites):
        raise ValueError(f"the edit {text!r} names a site twice: one site takes one rank")
    if len({part.spectrum.blocks for one in lasers for part in one.parts.values()}) > 1:
        raise ValueError(f"the edit {text!r} divides its matrices in several ways: expected the same blocks for all")
    return EditSpec.of(reduce(add, lasers))


def _laser(model: Model, part: str, text: str) -> Edit:
    where, _, rest = part.partition(":")
    amount, _, divided = rest.partition(":")
    name, named, value = amount.rpartition("=")
    name = name.strip()
    try:
        if name not in ("", "rank", "rate") or (named and not name):
            raise ValueError
        how: dict[str, Any] = {name or "rho": int(value) if name == "rank" else float(value)}
    except ValueError:
        raise ValueError(
            f"the edit {text!r} is not of the form SITE:RHO, SITE:rank=K or SITE:rate=R, as in 3.in:0.05"
        ) from None
    return laser(model, where, blocks=divided or None, **how)
