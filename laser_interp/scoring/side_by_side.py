"""Which edits run side by side, and how each edited matrix is computed for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from laser_interp.edits.edit import Edit
from laser_interp.edits.site_edit import SiteEdit
from laser_interp.edits.sites import GROUPS, Site
from laser_interp.models.bfloat16 import in_own_numbers
from laser_interp.models.experts import ROUTER
from laser_interp.models.forward import score_dtype
from laser_interp.models.hooks import Rewrite
from laser_interp.models.model import Model
from laser_interp.models.partial_runs import Compute
from laser_interp.models.residual_stream import is_parallel

Positions = Mapping[tuple[int, ...], Sequence[int]]  # how a prompt begins (token ids) -> where edits act in it


class SharedLayer:
    """Edits that begin in one layer and touch the same matrices of it, in the same directions, so that the same things
    stay as they are. With `positions` they act there only; groups with equal ones have the same object."""

    def __init__(
        self, model: Model, layer: int | None, edits: list[tuple[int, Edit | None]], positions: Positions | None = None
    ) -> None:
        self.model, self.layer, self.edits, self.positions = model, layer, edits, positions
        touched = {site.matrix for _, edit in edits if edit for site in edit.parts if site.layer == layer}
        below = downstream(model, layer) if layer is not None else {}
        changed = touched.union(*(below[m] for m in touched))
        self.unchanged = [m for m in model.matrices_of(layer) if m not in changed] if layer is not None else []
        # Their input is the same under every edit.
        self.sharing = {m for m in touched if not any(m in below[other] for other in touched)}
        self.sites = sorted({site for _, edit in edits if edit for site in edit.parts})
        self._factors: dict[Site, SharedFactors] = {}
        self._rewrites: dict[tuple[int, Site], Rewrite] = {}

    def parts(self, most: int) -> list[Pass]:
        """In passes of about equal size, none of more than `most` edits."""
        n = -(-len(self.edits) // most)
        bounds = [round(i * len(self.edits) / n) for i in range(n + 1)]
        return [Pass(self, list(range(a, b))) for a, b in itertools.pairwise(bounds)]

    def linear(self, which: Sequence[int]) -> tuple[dict[tuple[int, str], Compute], set[tuple[int, str]]]:
        """What computes each edited matrix when some of the edits run side by side, and which do so from one input."""
        out: dict[tuple[int, str], Compute] = {}
        shared = set()
        for site in self.sites:
            at = (site.layer, site.matrix)
            if site.layer == self.layer and site.matrix in self.sharing and len(self.edits) > 1:
                if site not in self._factors:  # the edits of a group touch the same matrices of its layer
                    parts = [edit.parts[site] for _, edit in self.edits if edit is not None]
                    self._factors[site] = SharedFactors(self.model, site, parts)
                out[at] = self._factors[site].of(which)
                shared.add(at)
            else:
                out[at] = self._one_by_one(site, which)
        return out, shared

    def placed(self, which: Sequence[int], acts: Sequence[Any]) -> dict[tuple[int, str], Compute]:
        """What computes each edited matrix where edits act at some positions only.

        Args:
            acts: for each computed token None, or (beginning of its prompt, number of the position), where edits act.
        """
        at = torch.tensor([i for i, act in enumerate(acts) if act is not None], dtype=torch.long)
        where = [act for act in acts if act is not None]
        return {(site.layer, site.matrix): self._placed(site, which, at, where) for site in self.sites}

    def _placed(self, site: Site, which: Sequence[int], at: Tensor, where: Sequence[tuple[Any, int]]) -> Compute:
        def compute(x: Tensor, original: Any) -> Tensor:
            out = original(x).clone()
            n, here = len(x) // len(which), at.to(x.device)
            for copy, i in enumerate(which):
                edit, rewrite = self.edits[i][1], self._rewrite(i, site)
                if rewrite is None or edit is None or edit.placement is None:
                    continue
                rows = here + copy * n
                new = rewrite(x[rows], out[rows])
                if edit.placement.added is not None:
                    added = edit.placement.added[site]
                    new = new + torch.stack([added[key][number] for key, number in where]).to(new)
                out[rows] = new
            return out

        return compute

    def _rewrite(self, i: int, site: Site) -> Rewrite | None:
        edit = self.edits[i][1]
        part = None if edit is None else edit.parts.get(site)
        if part is None:
            return None
        key = (id(part), site)  # edits that were composed share their parts
        if key not in self._rewrites:
            self._rewrites[key] = part.rewrite(self.model, site)
        return self._rewrites[key]

    def _one_by_one(self, site: Site, which: Sequence[int]) -> Compute:
        runs = [
            (rewrite, len(list(same))) for rewrite, same in itertools.groupby(self._rewrite(i, site) for i in which)
        ]

        def compute(x: Tensor, original: Any) -> Tensor:
            rows = len(x) // len(which)
            parts = x.split([n * rows for _, n in runs])
            outputs = [original(x) if f is None else f(x, x) for x, (f, _) in zip(parts, runs, strict=True)]
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

        return compute


@dataclass
class Pass:
    """Edits of a group that run side by side."""

    group: SharedLayer
    which: list[int]

    def halves(self) -> list[Pass]:
        middle = len(self.which) // 2
        return [Pass(self.group, self.which[:middle]), Pass(self.group, self.which[middle:])]


class SharedFactors:
    """A matrix under several edits that all see the same input: `x U` is computed once for all of them."""

    def __init__(self, model: Model, site: Site, parts: Sequence[SiteEdit]) -> None:
        spectrum = parts[0].spectrum
        dtype = score_dtype(model.dtype)
        device = model.weight(site.layer, site.matrix).device
        used = torch.stack([part.gains != 0 for part in parts]).any(0).nonzero().squeeze(1)
        self._down = (spectrum.U[:, used].double() * spectrum.S[used]).to(device, dtype)
        self._up = spectrum.Vh[used].to(device, dtype)
        bias = model.bias(site.layer, site.matrix)
        self._bias = None if bias is None else bias.to(device, dtype)
        self._dtype = dtype
        self._kept: list[tuple[slice, Tensor | None]] = []
        self._added = []
        for part in parts:
            gains = part.gains[used]
            held = gains.nonzero().squeeze(1)
            kept = slice(int(held[0]), int(held[-1]) + 1) if len(held) else slice(0, 0)
            inside = gains[kept]
            self._kept.append((kept, None if bool((inside == 1).all()) else inside.to(device, dtype)))
            self._added.append(part.added and tuple(factor.to(device, dtype) for factor in part.added))

    def of(self, which: Sequence[int]) -> Compute:
        """From one input, the outputs under some of the edits, one after the other."""

        stop = max(self._kept[i][0].stop for i in which)

        def compute(x: Tensor, original: Any) -> Tensor:
            n, x0 = len(x), x.to(self._dtype)
            out = torch.empty(len(which) * n, self._up.shape[1], dtype=self._dtype, device=x.device)
            with in_own_numbers(x.device):  # what is edited stays exact where the rest is screened
                z = x0 @ self._down[:, :stop]
                for copy, i in enumerate(which):
                    kept, gains = self._kept[i]
                    row = out[copy * n : (copy + 1) * n]
                    scaled = z[:, kept] if gains is None else z[:, kept] * gains
                    torch.mm(scaled, self._up[kept], out=row)
                    if (added := self._added[i]) is not None:
                        row += (x0 @ added[0]) @ added[1]
            if self._bias is not None:
                out += self._bias
            return out.to(x.dtype)

        return compute


def downstream(model: Model, layer: int) -> dict[str, set[str]]:
    """What an edit of a matrix changes in its own layer, beside the matrix's own output."""
    mixer = {m for m in model.matrices_of(layer) if model.maps[layer, m].mixes} - set(GROUPS["attn"])
    of_experts = {m for m in model.matrices_of(layer) if "." in m}
    after_mixer = set() if is_parallel(model, layer) else {*GROUPS["mlp"], *of_experts, ROUTER}
    below: dict[str, set[str]] = {m: {"o"} | after_mixer for m in ("q", "k", "v")}
    below |= {m: (mixer - {m}) | {"o"} | after_mixer for m in mixer}  # in which order they follow is not known
    below |= {"o": after_mixer, "in": {"out"}, "gate": {"out"}, "out": set()}
    below[ROUTER] = of_experts
    for m in of_experts:
        kind, _, expert = m.partition(".")
        below[m] = {f"{other}.{expert}" for other in below[kind]}
    return below


def runs_side_by_side(model: Model, edit: Edit | None) -> bool:
    """Whether the engine runs an edit: one that acts everywhere; or one at some positions, if in its first layer and
    all above it tokens see each other by keys and values alone."""
    if edit is None or edit.is_plain:
        return True
    if edit.path != "network" or model.masked or any("." in site.matrix for site in edit.parts):
        return False
    layers = range(min(site.layer for site in edit.parts), model.n_layers)
    mixing = ({m for m in model.matrices_of(layer) if model.maps[layer, m].mixes} for layer in layers)
    return all(matrices == set(GROUPS["attn"]) for matrices in mixing)


def group_edits(model: Model, edits: Sequence[Edit | None]) -> list[SharedLayer]:
    """Groups of edits, from the first layer to the last; the model as trained is last, when most of it is known."""
    grouped: dict[tuple[int, tuple[str, ...], tuple[str, ...], int], list[tuple[int, Edit | None]]] = {}
    known: list[Positions | None] = [None]
    for i, edit in enumerate(edits):
        where = None if edit is None or edit.placement is None else edit.placement.positions
        at = next((i for i, positions in enumerate(known) if where is positions or where == positions), len(known))
        known += [where] * (at == len(known))
        if edit is None:
            key = (model.n_layers, (), (), 0)
        else:
            edit.check(model)
            first = min(site.layer for site in edit.parts)
            parts = [(site.matrix, edit.parts[site].spectrum) for site in edit.sites if site.layer == first]
            # All edits of a group are gains on the same directions. A divided spectrum has its own.
            bases = tuple(str(spectrum.blocks) for _, spectrum in parts)
            key = (first, tuple(matrix for matrix, _ in parts), bases, at)
        grouped.setdefault(key, []).append((i, edit))
    return [
        SharedLayer(model, None if layer == model.n_layers else layer, of_group, known[at])
        for (layer, _, _, at), of_group in sorted(grouped.items(), key=lambda item: item[0])
    ]
