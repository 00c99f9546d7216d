"""A cell: a short description of one edit, without its arrays, that can be written as text and read again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

from laser_interp.edits.blocks import Blocks
from laser_interp.edits.constructors import band, laser, zeroed
from laser_interp.edits.controls import CONTROLS
from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import Site
from laser_interp.models.model import Model

_NUMBERS = ("rho", "rank", "blocks", "alpha", "start", "stop", "seed")


@dataclass(frozen=True)
class Cell:
    """One edit of a search.

    Its text lists its attributes, as in `3.in laser rho=0.05 rank=3`, or for several sites
    `3.in+3.out laser rank=1+2`.

    Attributes:
        sites: what is edited.
        kind: "laser", "inject", "band", "learned", or the name of a control.
        rho: fraction of rank kept, as it was asked for, even if the rank was then lifted to 1.
        ranks: the rank that LASER keeps at each site; with blocks, the rank of each block.
        blocks: how each matrix is divided; see `li.Blocks`.
        alpha: strength of the injected part.
        start, stop: the band that is kept: the directions `start <= i < stop`.
        seed: of a random control.

    Example:
        >>> str(li.Cell(li.Site(3, "in"), rho=0.05, ranks=3))
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

    def __post_init__(self) -> None:
        if isinstance(self.sites, Site):
            object.__setattr__(self, "sites", (self.sites,))
        if isinstance(self.ranks, int):
            object.__setattr__(self, "ranks", (self.ranks,))

    @property
    def site(self) -> Site:
        """The one site of most cells."""
        (site,) = self.sites
        return site

    @property
    def rank(self) -> int | None:
        """The rank kept, where there is one site."""
        return self.ranks[0] if len(self.ranks) == 1 else None

    def __str__(self) -> str:
        values = {name: getattr(self, name) for name in _NUMBERS if name != "rank"}
        values["rank"] = "+".join(map(str, self.ranks)) or None
        numbers = [f"{name}={values[name]}" for name in _NUMBERS if values[name] is not None]
        return " ".join(["+".join(map(str, self.sites)), self.kind, *numbers])

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Read what `str` wrote.

        Raises:
            ValueError: text of another form.
        """
        sites, _, rest = text.partition(" ")
        kind, *pairs = rest.split() or [""]
        numbers: dict[str, Any] = {}
        try:
            for pair in pairs:
                name, _, value = pair.partition("=")
                if name not in _NUMBERS:
                    raise ValueError(f"{name!r} is none of {', '.join(_NUMBERS)}")
                if name == "blocks":
                    numbers["blocks"] = Blocks.parse(value)
                elif name == "rank":
                    numbers["ranks"] = tuple(int(rank) for rank in value.split("+"))
                else:
                    numbers[name] = float(value) if name in ("rho", "alpha") else int(value)
            if kind not in ("laser", "inject", "band", "learned", *CONTROLS):
                raise ValueError(f"the kind {kind!r} is not known")
            return cls(tuple(Site.parse(site) for site in sites.split("+")), kind, **numbers)
        except ValueError as error:
            raise ValueError(f"{text!r} is no cell of a search: {error}") from None

    @classmethod
    def of(cls, edit: Edit) -> Cell:
        """The cell of an edit that is LASER.

        Raises:
            ValueError: the edit is not plain LASER, so its sites and ranks do not describe it.
        """
        if edit.kind != "laser" or not edit.is_plain:
            raise ValueError(f"{edit!r} is not LASER at all positions: a cell describes it by its sites and ranks")
        (blocks, *others) = {edit.parts[site].spectrum.blocks for site in edit.sites}
        if others:
            raise ValueError(f"{edit!r} divides its matrices in several ways: a cell describes one")
        parts = [edit.parts[site] for site in edit.sites]
        ranks = [int(part.spectrum.place_in_block[part.gains != 0].max()) + 1 for part in parts]
        return cls(edit.sites, "laser", rho=edit.rho, ranks=tuple(ranks), blocks=blocks)

    def of_kind(self, kind: str, **numbers: Any) -> Cell:
        """The cell of another kind at the same sites and ranks."""
        return replace(self, kind=kind, **numbers)

    def laser(self, model: Model) -> Edit:
        """LASER at the cell's sites and ranks; cells of other kinds are made from it."""
        edits = [
            laser(model, site, rank=rank, blocks=self.blocks) for site, rank in zip(self.sites, self.ranks, strict=True)
        ]
        # Keep the ρ that was asked for, even if the rank was lifted to 1.
        return replace(reduce(add, edits), rho=self.rho)

    def edit(self, model: Model) -> Edit:
        """The edit itself."""
        if self.kind == "band":
            assert self.start is not None
            assert self.stop is not None
            return band(model, self.site, self.start, self.stop)
        if self.kind == "learned":
            raise ValueError(f"the gains of {str(self)!r} are in the search that learned them: use Selection.edit")
        if self.kind == "zeroed":
            return zeroed(model, self.sites)
        if self.kind == "laser":
            return self.laser(model)
        if self.kind == "inject":
            assert self.alpha is not None
            return self.laser(model).inject(self.alpha)
        return CONTROLS[self.kind].make(model, self.laser(model), self.seed or 0)
