"""Edits: gains on singular directions.

`y = ((x U) * S * g) Vh + b`: with g = 1 the model as trained, with g = 1 on the top k directions and 0
above them LASER, and every other question of this package is another vector of gains. An edit never
touches weights; it acts inside `with edit.on(model):` and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.sites import Site, Where, resolve
from laser_interp.edits.spectra import Spectrum, site_sha256, spectrum
from laser_interp.facts.fact_set import FactSet
from laser_interp.models.model import Model, Rewrite


@dataclass(frozen=True, eq=False)
class SiteEdit:
    """What an edit does at one site.

    Attributes:
        spectrum: of the site's weight.
        gains: `[r]`, fp64, one factor a singular direction.
        added: factors `(A [d_in, n], B [n, d_out])` of a matrix added to the edited weight. Only
            controls have one: they move the weight in directions that are not its own.
    """

    spectrum: Spectrum
    gains: Float[Tensor, " r"]
    added: tuple[Float[Tensor, "d_in n"], Float[Tensor, "n d_out"]] | None = None

    @property
    def weight(self) -> Float[Tensor, "d_in d_out"]:
        """The edited weight in fp64, as a plain copy of the model would have to carry it."""
        edited = self.spectrum.matrix(self.gains)
        return edited if self.added is None else edited + self.added[0].double() @ self.added[1].double()

    @property
    def removed_energy(self) -> float:
        """Squared Frobenius distance from the original weight, as a share of the weight's own."""
        original = self.spectrum.matrix()
        return float((original - self.weight).square().sum() / original.square().sum())

    def times(self, outer: SiteEdit) -> SiteEdit:
        if outer.added is not None or self.added is not None:
            raise ValueError("a control that moves a weight in foreign directions cannot be nested at one site")
        return replace(self, gains=self.gains * outer.gains)

    def rewrite(self, model: Model, site: Site) -> Rewrite:
        """The function that a hook runs: it keeps what is kept instead of subtracting what is not,
        which is exact to rounding at every rank."""
        dtype = torch.promote_types(model.dtype, torch.float32)
        device = model.weight(site.layer, site.matrix).device  # a large model's layers may lie on several
        bias = model.bias(site.layer, site.matrix)
        bias = None if bias is None else bias.to(device, dtype)
        used = self.gains.nonzero().squeeze(1)
        scale = (self.spectrum.S * self.gains)[used]
        down = (self.spectrum.U[:, used].double() * scale).to(device, dtype)
        up = self.spectrum.Vh[used].to(device, dtype)
        if self.added is not None:
            down = torch.cat([down, self.added[0].to(device, dtype)], dim=1)
            up = torch.cat([up, self.added[1].to(device, dtype)], dim=0)

        if down.shape[1] * (down.shape[0] + up.shape[1]) > down.shape[0] * up.shape[1]:
            dense = down @ up  # fewer operations than through the factors

            def multiply(x: Tensor) -> Tensor:
                return x @ dense
        else:

            def multiply(x: Tensor) -> Tensor:
                return (x @ down) @ up

        def apply(x: Tensor, y: Tensor) -> Tensor:
            out = multiply(x.to(dtype))
            return (out if bias is None else out + bias).to(y.dtype)

        return apply


PATHS = ("network", "direct", "indirect")
POSITIONS = ("last", "subject_last", "subject")


@dataclass(frozen=True, eq=False)
class Places:
    """Where in which prompts an edit acts.

    Attributes:
        name: what the places are called in tables.
        positions: how a prompt begins (token ids) -> positions in it.
        added: for each site, vectors `[n_positions, d_out]` that are added there, by the same beginnings.
    """

    name: str
    positions: Mapping[tuple[int, ...], tuple[int, ...]]
    added: Mapping[Site, Mapping[tuple[int, ...], Float[Tensor, "n_positions d_out"]]] | None = None


@dataclass(frozen=True, eq=False)
class Edit:
    """A frozen map from sites to gains.

    Attributes:
        parts: what is done at each site.
        kind: "laser", "discarded", "inject", "band", "gains", "control:...", or kinds joined by "+".
        rho, alpha: as asked for; None where they do not apply or differ between sites.
        path: "network" (all that follows sees the change), or "direct" or "indirect"; see `via`.
        places: None for every position of every prompt; see `at`.
    """

    parts: Mapping[Site, SiteEdit]
    kind: str
    rho: float | None = None
    alpha: float | None = None
    path: str = "network"
    places: Places | None = None

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(sorted(self.parts))

    @property
    def rank(self) -> int | None:
        """Directions with a gain other than 0, where the edit has one site."""
        if len(self.parts) != 1:
            return None
        return int(next(iter(self.parts.values())).gains.count_nonzero())

    def describe(self) -> dict[str, object]:
        """The columns that say in every table what the edit was."""
        where = "" if self.places is None else f"@{self.places.name}"
        return {
            "site": " ".join(map(str, self.sites)),
            "kind": self.kind + where + ("" if self.path == "network" else f"/{self.path}"),
            "rho": self.rho,
            "rank_kept": self.rank,
            "alpha": self.alpha,
        }

    def __repr__(self) -> str:
        told = {k: v for k, v in self.describe().items() if v is not None}
        return f"Edit({', '.join(f'{k}={v}' for k, v in told.items())})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{site}</td><td>{int(p.gains.count_nonzero())} of {p.spectrum.max_rank}</td>"
            f"<td>{p.removed_energy:.1%}</td></tr>"
            for site, p in sorted(self.parts.items())
        )
        head = "<tr><th>site</th><th>directions kept</th><th>energy changed</th></tr>"
        return f"<p>{self!r}</p><table>{head}{rows}</table>"

    def __add__(self, other: Edit) -> Edit:
        """Both edits, on different sites.

        Raises:
            ValueError: they share a site.
        """
        if shared := sorted(set(self.parts) & set(other.parts)):
            raise ValueError(
                f"both edits act on {', '.join(map(str, shared))}: one site takes one vector of gains; "
                "make it with li.gains, or nest the edits to multiply them"
            )
        if self.path != other.path or self.places is not other.places:
            raise ValueError("the edits act on other paths or positions: add them first, then choose where they act")
        kind = self.kind if self.kind == other.kind else f"{self.kind}+{other.kind}"
        same = self.rho == other.rho, self.alpha == other.alpha
        return replace(
            self,
            parts={**self.parts, **other.parts},
            kind=kind,
            rho=self.rho if same[0] else None,
            alpha=self.alpha if same[1] else None,
        )

    def _map(self, change: Callable[[SiteEdit], SiteEdit], kind: str, alpha: float | None = None) -> Edit:
        parts = {site: change(part) for site, part in self.parts.items()}
        return replace(self, parts=parts, kind=kind, alpha=alpha)

    @property
    def is_plain(self) -> bool:
        """Whether it acts at every position and through the network, as other weights would."""
        return self.path == "network" and self.places is None

    def via(self, path: str) -> Edit:
        """The same change of the matrices' outputs, seen by a part of the model only.

        Args:
            path: "network": by all that follows. "direct": by the final residual stream alone, as a term added to
                it. "indirect": by all that follows, but not as a term of the final residual stream. What the
                final residual stream changes by directly and indirectly adds up to what it changes by in all.

        Raises:
            ValueError: another path. An edit of other matrices than o and out, or of a model whose matrices do not
                simply add to the residual stream, is refused when it is used.
        """
        if path not in PATHS:
            raise ValueError(f"path is {path!r}: expected one of {', '.join(PATHS)}")
        return replace(self, path=path)

    def at(self, model: Model, where: str, prompts: FactSet | Mapping[str, str] | Sequence[str]) -> Edit:
        """This edit at chosen positions only.

        Args:
            where: "last" (where a prompt's answer is read), "subject_last" (the subject's last token), or
                "subject" (all its tokens).
            prompts: a fact set, or {prompt: its subject}, or, for "last", prompts. The edit works on these
                prompts and what continues them, and refuses others.

        Raises:
            ValueError: another place, or a prompt that does not hold its subject.
        """
        if where not in POSITIONS:
            raise ValueError(f"where is {where!r}: expected one of {', '.join(POSITIONS)}")
        return replace(self, places=Places(where, _positions(model, where, _subjects(prompts))))

    def patched(
        self,
        model: Model,
        sources: Mapping[str, str],
        *,
        where: str = "last",
        subjects: Mapping[str, str] | None = None,
    ) -> Edit:
        """Activation patching of what this edit discards: at chosen positions, the part computed on another prompt.

        There each site gives what the edit keeps of its own input, and what the edit discards, computed from the
        source prompt at the place of the same name. With source and target the same this is the model as trained.

        Args:
            sources: {prompt: the prompt whose discarded part is injected into it}.
            where: see `at`; "subject" is refused, because two subjects may differ in length.
            subjects: {prompt: its subject}, of targets and sources, for "subject_last".

        Raises:
            ValueError: see `at`.
        """
        if where not in ("last", "subject_last"):
            raise ValueError(f"where is {where!r}: expected 'last' or 'subject_last'")
        of = subjects or {}
        named = {text: of.get(text, "") for pair in sources.items() for text in pair}
        targets = _positions(model, where, {target: named[target] for target in sources})
        found = _positions(model, where, {source: named[source] for source in sources.values()})
        begins = dict(zip(dict.fromkeys(sources.values()), found, strict=True))
        rows = [list(begin) for begin in begins.values()]
        sites = [(site.layer, site.matrix) for site in self.sites]
        dtype = torch.promote_types(model.dtype, torch.float32)
        vectors: dict[Site, dict[str, Tensor]] = {site: {} for site in self.sites}
        for indices, _, at_site in model.activations(rows, None, sites):
            for site, part in self.parts.items():
                x, _ = at_site((site.layer, site.matrix))
                tail = part.spectrum.matrix(1 - part.gains).to(x.device, dtype)
                for n, i in enumerate(indices):
                    (position,) = found[tuple(rows[i])]
                    vectors[site][list(begins)[i]] = x[n, position].to(dtype) @ tail
        added = {
            site: {key: vectors[site][source][None] for key, source in zip(targets, sources.values(), strict=True)}
            for site in self.sites
        }
        return replace(self, kind=f"{self.kind}-patched", places=Places(where, targets, added))

    def discarded(self, share: float = 1.0, *, start: str = "bottom") -> Edit:
        """Only what this edit takes away: at each site W minus the edited weight.

        Args:
            share: fraction of the discarded directions to keep, in (0, 1]; ⌈share · number⌉ of them.
            start: where a share begins to grow: "bottom" with the smallest singular values, as in
                section 5.2 of the paper, or "top" with the largest discarded one.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}: the part of the discarded directions must lie in (0, 1]")
        if start not in ("bottom", "top"):
            raise ValueError(f"start is {start!r}: expected 'bottom' or 'top'")

        def complement(part: SiteEdit) -> SiteEdit:
            if part.added is not None:
                raise ValueError("a control that moves a weight in foreign directions discards none of its own")
            gains = 1 - part.gains
            directions = gains.nonzero().squeeze(1)
            if len(directions) == 0:
                raise ValueError("this edit discards nothing: all its gains are 1")
            n = math.ceil(round(share * len(directions), 9))
            chosen = directions[-n:] if start == "bottom" else directions[:n]
            kept = torch.zeros_like(gains)
            kept[chosen] = gains[chosen]
            return replace(part, gains=kept)

        return self._map(complement, "discarded" if share == 1 else f"discarded-{start}-{share:g}")

    def inject(self, alpha: float) -> Edit:
        """This edit, plus `alpha` times what it takes away: 0 is the edit, 1 the model as trained."""
        if not math.isfinite(alpha):
            raise ValueError(f"alpha is {alpha}: expected a finite number")
        return self._map(
            lambda part: replace(
                part,
                gains=part.gains + alpha * (1 - part.gains),
                added=part.added and ((1 - alpha) * part.added[0], part.added[1]),
            ),
            "inject",
            alpha,
        )

    def check(self, model: Model) -> None:
        """Whether this edit was made from this model's weights.

        Raises:
            ValueError: it was not, or the model has no such site.
        """
        for site, part in self.parts.items():
            resolve(model, site)
            if site_sha256(model, site) != part.spectrum.weight_sha256:
                raise ValueError(
                    f"this edit of {site} was made from other weights than those of {model.name!r}: "
                    "make it again from this model"
                )
            if self.path != "network" and (why := model.adds_to_residual(site.layer, site.matrix)):
                raise ValueError(f"{site} has no {self.path} path: {why}")

    @contextmanager
    def on(self, model: Model) -> Iterator[Model]:
        """The model with this edit, until the context ends.

        Contexts nest; gains of nested edits of one site multiply.

        Raises:
            ValueError: the edit was made from another model's weights.
        """
        self.check(model)
        before = dict(model.active)
        if not self.is_plain and before:
            raise ValueError("an edit at chosen positions, or on one path, cannot be nested in another")
        combined = {site: part.times(before[site]) if site in before else part for site, part in self.parts.items()}
        rewrites = {
            (site.layer, site.matrix): _placed(model, site, part.rewrite(model, site), self.places)
            for site, part in combined.items()
        }
        # An inner hook runs after the outer one and recomputes the output from the site's input alone.
        with model.rewriting(rewrites, self.path):
            model.active |= combined
            try:
                yield model
            finally:
                model.active.clear()
                model.active.update(before)


def _placed(model: Model, site: Site, rewrite: Rewrite, places: Places | None) -> Rewrite:
    """The rewrite at its places only."""
    if places is None:
        return rewrite
    added = None if places.added is None else list(places.added[site].values())
    keys = {key: i for i, key in enumerate(places.positions)}
    numbered = {key: [*at] for key, at in places.positions.items()}

    def apply(x: Tensor, y: Tensor) -> Tensor:
        here = model.placed(tuple(y.shape), numbered)
        if not here:
            return y
        rows = torch.tensor([row for row, _, _, _ in here], device=y.device)
        at = torch.tensor([position for _, position, _, _ in here], device=y.device)
        new = rewrite(x[rows, at], y[rows, at])
        if added is not None:
            new = new + torch.stack([added[keys[key]][number] for _, _, number, key in here]).to(new)
        out = y.clone()
        out[rows, at] = new
        return out

    return apply


def _subjects(prompts: FactSet | Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    if isinstance(prompts, FactSet):
        return {prompt: fact.subject for fact in prompts for prompt in fact.prompts}
    if isinstance(prompts, Mapping):
        return dict(prompts)
    return dict.fromkeys([prompts] if isinstance(prompts, str) else prompts, "")


def _positions(model: Model, where: str, subjects: Mapping[str, str]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """How each prompt begins, up to the last of its places (of a masked model, before the mask) -> the places."""
    out: dict[tuple[int, ...], tuple[int, ...]] = {}
    for prompt, (row, read) in zip(subjects, model.questions(list(subjects)), strict=True):
        if where == "last":
            places, begin = (read,), row[:read] if model.masked else row[: read + 1]
        else:
            places = tuple(model.tokens_of(prompt, subjects[prompt]))
            places = places[-1:] if where == "subject_last" else places
            begin = row[: places[-1] + 1]
        if out.setdefault(tuple(begin), places) != places:
            raise ValueError(f"two prompts begin alike and have other places: one of them is {prompt!r}")
    return out


def rank_of(rho: float, max_rank: int) -> int:
    """⌊ρ · max_rank⌋, the rank LASER keeps (paper, section 4).

    Raises:
        ValueError: ρ outside (0, 1].
    """
    if not 0 < rho <= 1:
        raise ValueError(f"rho is {rho}: the fraction of rank kept must lie in (0, 1]")
    return math.floor(round(rho * max_rank, 9))  # 0.29 * 100 is 28.999…, and means 29


def laser(
    model: Model,
    where: Where,
    rho: float | None = None,
    *,
    rank: int | None = None,
    spectra: Mapping[Site, Spectrum] | None = None,
) -> Edit:
    """LASER: keep the top singular directions of one matrix or several, discard the rest.

    Args:
        where: `Site(3, "in")`, "3.in", `"*.mlp"`, or several of them.
        rho: fraction of the maximum rank kept, in (0, 1].
        rank: number of directions kept, instead of rho.
        spectra: other factorisations of the sites, as `laser_interp.spectrum.whitened` makes them.

    Raises:
        ValueError: neither or both of rho and rank; either out of range; a rho that rounds to rank 0.
    """
    if (rho is None) == (rank is None):
        raise ValueError(f"rho is {rho} and rank is {rank}: give exactly one of them")
    parts = {}
    for site in resolve(model, where):
        of_site = (spectra or {}).get(site) or spectrum(model, site)
        r = of_site.max_rank
        if rank is not None:
            if not 1 <= rank <= r:
                raise ValueError(f"rank is {rank}: {site} has ranks 1 to {r} (li.zeroed makes the zero matrix)")
            k = rank
        else:
            assert rho is not None
            k = rank_of(rho, r)
            if k == 0:
                raise ValueError(
                    f"rho = {rho} of rank {r} at {site} rounds to rank 0: use rho >= {1 / r:.3g}, rank=1, "
                    "or li.zeroed for the zero matrix"
                )
        parts[site] = SiteEdit(of_site, _prefix(r, k))
    return Edit(parts, "laser", rho=rho)


def parse_laser(model: Model, text: str) -> Edit:
    """LASER from one line: "3.in:0.05" (sites and ρ) or "3.in:rank=3", several joined by "+".

    Raises:
        ValueError: text of another form, or a site or ρ that `laser` refuses.
    """
    edit: Edit | None = None
    for part in text.split("+"):
        where, _, rho = part.strip().partition(":")
        name, is_rank, number = rho.rpartition("=")
        try:
            if name.strip() not in ("", "rank") or (is_rank and not name.strip()):
                raise ValueError
            value = int(number) if is_rank else float(number)
        except ValueError:
            raise ValueError(f"the edit {text!r} is not of the form SITE:RHO or SITE:rank=K, as in 3.in:0.05") from None
        one = laser(model, where, rank=int(value)) if is_rank else laser(model, where, rho=value)
        edit = one if edit is None else edit + one
    assert edit is not None
    return edit


def _prefix(r: int, k: int) -> Tensor:
    return (torch.arange(r) < k).double()


def zeroed(model: Model, where: Where) -> Edit:
    """The matrix replaced by zero (its bias stays)."""
    parts = {
        site: SiteEdit(spectrum(model, site), _prefix(spectrum(model, site).max_rank, 0))
        for site in resolve(model, where)
    }
    return Edit(parts, "zeroed")


def band(model: Model, where: Where, start: int, stop: int, *, keep: bool = True) -> Edit:
    """Keep only (or, with `keep=False`, remove only) the directions `start <= i < stop`.

    Raises:
        ValueError: an empty band or one outside the site's rank.
    """
    parts = {}
    for site in resolve(model, where):
        of_site = spectrum(model, site)
        if not 0 <= start < stop <= of_site.max_rank:
            raise ValueError(f"band {start}:{stop} at {site}: expected 0 <= start < stop <= {of_site.max_rank}")
        inside = _prefix(of_site.max_rank, stop) - _prefix(of_site.max_rank, start)
        parts[site] = SiteEdit(of_site, inside if keep else 1 - inside)
    return Edit(parts, "band" if keep else "band-removed")


def gains(model: Model, values: Mapping[Site | str, Sequence[float] | Tensor]) -> Edit:
    """An edit from any gains: `{"3.in": [1, 1, 0, ...]}`, one number a singular direction.

    Raises:
        ValueError: a wrong number of gains, or one that is not finite.
    """
    parts: dict[Site, SiteEdit] = {}
    for where, vector in values.items():
        given = torch.as_tensor(vector, dtype=torch.float64).detach().cpu()
        for site in resolve(model, where):
            of_site = spectrum(model, site)
            if given.shape != (of_site.max_rank,):
                raise ValueError(
                    f"{tuple(given.shape)} gains for {site}: expected {of_site.max_rank}, one a singular direction"
                )
            if not bool(given.isfinite().all()):
                raise ValueError(f"the gains for {site} are not all finite")
            if site in parts:
                raise ValueError(f"{site} is named twice: one site takes one vector of gains")
            parts[site] = SiteEdit(of_site, given)
    if not parts:
        raise ValueError("no gains given: expected {site: gains}")
    return Edit(parts, "gains")


# --- controls: what else could have had the same effect? ------------------------------------------


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random_orthonormal(d: int, n: int, generator: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(d, n, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()  # uniform over orthonormal frames


def same_spectrum_random(model: Model, edit: Edit, *, seed: int) -> Edit:
    """W − R at each site, R with the discarded part's singular values and random singular vectors."""
    generator = _generator(seed)
    parts = {}
    for site, part in sorted(edit.parts.items()):
        of_site = part.spectrum
        r = of_site.max_rank
        if of_site.metric == "weights":
            values = of_site.S * (1 - part.gains)
        else:  # its S are not the singular values of the weight
            values = torch.linalg.svdvals(of_site.matrix() - part.weight)[:r]
        left = _random_orthonormal(of_site.U.shape[0], r, generator)
        right = _random_orthonormal(of_site.Vh.shape[1], r, generator)
        parts[site] = SiteEdit(of_site, _prefix(r, r), (-left * values, right.T))
    return Edit(parts, "control:same_spectrum_random", edit.rho)


def random_subspace(model: Model, edit: Edit, *, seed: int) -> Edit:
    """W without a random subspace of its inputs, of the same Frobenius norm as the discarded part.

    Random orthonormal input directions are projected out one after the other; the last one only in
    part, so that the removed norm is the same.
    """
    generator = _generator(seed)
    parts = {}
    for site, part in sorted(edit.parts.items()):
        of_site = part.spectrum
        w = of_site.matrix()
        target = (w - part.weight).square().sum()
        q = _random_orthonormal(w.shape[0], w.shape[0], generator)
        parts[site] = SiteEdit(of_site, _prefix(of_site.max_rank, of_site.max_rank), _removed(q, q.T @ w, target))
    return Edit(parts, "control:random_subspace", edit.rho)


def _removed(q: Tensor, rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of −(the first rows of Q Qᵀ W whose squared norms sum to `target`)."""
    share = _share_of_each(rows.square().sum(1), target)
    used = share > 0
    return -q[:, used] * share[used], rows[used]


def _share_of_each(energies: Tensor, target: Tensor) -> Tensor:
    """How much of each piece to remove, in order, so that `sum(share² · energy) = target`."""
    before = energies.cumsum(0) - energies
    return ((target - before) / energies.clamp_min(1e-300)).clamp(0, 1).sqrt()


def random_kept(model: Model, edit: Edit, *, seed: int) -> Edit:
    """As many singular directions as the edit keeps, but drawn at random."""
    generator = _generator(seed)
    parts = {}
    for site, part in sorted(edit.parts.items()):
        shuffled = part.gains[torch.randperm(part.spectrum.max_rank, generator=generator)]
        parts[site] = replace(part, gains=shuffled)
    return Edit(parts, "control:random_kept", edit.rho)


def random_equal_energy(model: Model, edit: Edit, *, seed: int) -> Edit:
    """Random singular directions removed, with the energy of the discarded part."""
    generator = _generator(seed)
    parts = {}
    for site, part in sorted(edit.parts.items()):
        if part.spectrum.metric != "weights":
            raise ValueError("directions of a whitened spectrum have no energy of their own: use random_kept")
        energy = part.spectrum.energy
        target = (energy * (1 - part.gains).square()).sum()
        order = torch.randperm(part.spectrum.max_rank, generator=generator)
        vector = torch.ones_like(energy)
        vector[order] = 1 - _share_of_each(energy[order], target)
        parts[site] = replace(part, gains=vector)
    return Edit(parts, "control:random_equal_energy", edit.rho)


def bottom_kept(model: Model, edit: Edit) -> Edit:
    """As many directions as the edit keeps, but those with the smallest singular values."""
    parts = {site: replace(part, gains=part.gains.flip(0)) for site, part in edit.parts.items()}
    return Edit(parts, "control:bottom_kept", edit.rho)


def same_rank_in_layer(model: Model, edit: Edit, layer: int = 0) -> Edit:
    """The edit's gains on the same matrices of another layer."""
    parts = {}
    for site, part in sorted(edit.parts.items()):
        (there,) = resolve(model, Site(layer, site.matrix))
        if there in parts or there in edit.parts:
            raise ValueError(f"the control of {site} in layer {layer} falls on {there}, which is taken")
        parts[there] = SiteEdit(spectrum(model, there), part.gains)
    return Edit(parts, f"control:layer_{layer}", edit.rho)
