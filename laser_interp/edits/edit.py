"""Edits: gains on singular directions of one site or several.

The output of a site becomes `y = ((x U) * S * g) Vh + b`, with the gains g. If all gains are 1, this is the model as
trained. LASER has g = 1 on the top k directions and 0 on the others. Other edits have other gains. An edit never
changes weights. It acts only inside `with edit.on(model):`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from laser_interp.choices import Path, Position, check_choice
from laser_interp.edits import placement
from laser_interp.edits.edit_files import write_edit
from laser_interp.edits.placement import Placement
from laser_interp.edits.site_edit import SiteEdit
from laser_interp.edits.sites import Site, resolve
from laser_interp.edits.spectra import site_sha256
from laser_interp.models.hooks import Rewrite, rewriting
from laser_interp.models.in_use import Entered, active_edits, all_are_plain, entered, exclusive_use
from laser_interp.models.loaded_model import check_model
from laser_interp.models.model import Model
from laser_interp.models.residual_stream import why_not_additive
from laser_interp.models.weights import check_linear


@dataclass(frozen=True, eq=False)
class Edit:
    """A frozen map from sites to gains.

    Attributes:
        parts: what is done at each site.
        kind: "laser", "discarded", "inject", "band", "gains", "control:...", or kinds joined by "+".
        rho, alpha: as asked for; None where they do not apply or differ between sites.
        path: "network" (all that follows sees the change), or "direct" or "indirect"; see `via`.
        placement: None for every position of every prompt; see `at`.
    """

    parts: Mapping[Site, SiteEdit]
    kind: str
    rho: float | None = None
    alpha: float | None = None
    path: Path = "network"
    placement: Placement | None = None

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
        where = "" if self.placement is None else f"@{self.placement.name}"
        blocks = sorted({str(part.spectrum.blocks) for part in self.parts.values() if part.spectrum.blocks})
        divided = f"[{' '.join(blocks)}]" if blocks else ""
        return {
            "site": " ".join(map(str, self.sites)),
            "kind": self.kind + divided + where + ("" if self.path == "network" else f"/{self.path}"),
            "rho": self.rho,
            "rank_kept": self.rank,
            "alpha": self.alpha,
        }

    def __repr__(self) -> str:
        known = {k: v for k, v in self.describe().items() if v is not None}
        return f"Edit({', '.join(f'{k}={v}' for k, v in known.items())})"

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
        if self.path != other.path or self.placement is not other.placement:
            raise ValueError("the edits act on other paths or positions: add them first, then choose where they act")
        kind = self.kind if self.kind == other.kind else f"{self.kind}+{other.kind}"
        return replace(
            self,
            parts={**self.parts, **other.parts},
            kind=kind,
            rho=self.rho if self.rho == other.rho else None,
            alpha=self.alpha if self.alpha == other.alpha else None,
        )

    def with_parts(self, parts: Mapping[Site, SiteEdit], kind: str, alpha: float | None = None) -> Edit:
        """An edit of another kind, made from this one, that acts at the same positions and along the same path.

        Raises:
            ValueError: this edit was patched from other prompts.
        """
        if self.placement is not None and self.placement.added is not None:
            raise ValueError("this edit was patched from other prompts: make other edits of it before it is patched")
        return replace(self, parts=parts, kind=kind, alpha=alpha)

    @property
    def is_plain(self) -> bool:
        """Whether it acts at every position and through the network, as other weights would."""
        return self.path == "network" and self.placement is None

    def via(self, path: Path) -> Edit:
        """The same change of the matrices' outputs, seen by a part of the model only.

        Args:
            path: "network": all later layers see the change. "direct": only the final residual stream sees it, as a
                term added to it. "indirect": all later layers see it, but it is not a term of the final residual
                stream. For an edit of one site, the direct and the indirect change of the final residual stream add
                up to its whole change.

        Raises:
            ValueError: another path. An edit of other matrices than o and out, or of a model whose matrices do not
                simply add to the residual stream, is refused when it is used.
        """
        check_choice("path", path, Path)
        return replace(self, path=path)

    def at(self, model: Model, where: Position, prompts: placement.Prompts) -> Edit:
        """This edit at chosen positions only.

        Args:
            where: "last" (where a prompt's answer is read), "subject_last" (the subject's last token), or
                "subject" (all its tokens).
            prompts: facts or their file, {prompt: its subject}, or, for "last", prompts. The edit acts on these
                prompts and their continuations, and refuses other prompts.

        Raises:
            ValueError: another position, a prompt that does not hold its subject, two prompts that begin alike and
                have different positions, or an edit that was patched.
        """
        here = Placement(where, placement.positions(model, where, prompts))
        return replace(self.with_parts(self.parts, self.kind, self.alpha), placement=here)

    def patched(
        self,
        model: Model,
        sources: Mapping[str, str],
        *,
        where: Position = "last",
        subjects: Mapping[str, str] | None = None,
    ) -> Edit:
        """Activation patching of the part that this edit discards: at chosen positions it comes from another prompt.

        There, the output of a site is the sum of two terms: what the edit keeps, computed on the prompt itself, and
        what the edit discards, computed on the source prompt at its own last (or subject's last) token. If source and
        target are the same prompt, this is the model as trained.

        Args:
            sources: {prompt: the prompt whose discarded part is injected into it}.
            where: see `at`; "subject" is refused, because two subjects may differ in length.
            subjects: {prompt: its subject}, of targets and sources, for "subject_last".

        Raises:
            ValueError: see `at`; a masked model; or prompts that begin alike and have several sources.
        """
        chosen = placement.patched_placement(model, self.parts, sources, where, subjects or {})
        return replace(self, kind=f"{self.kind}-patched", placement=chosen)

    def discarded(self, share: float = 1.0, *, start: str = "bottom") -> Edit:
        """Only what this edit takes away: at each site W minus the edited weight.

        Args:
            share: fraction of the discarded directions to keep, in (0, 1]; ⌈share · number⌉ of them.
            start: which discarded directions a share takes first: "bottom" takes those with the smallest singular
                values, as in section 5.2 of the paper; "top" takes those with the largest.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}: the part of the discarded directions must lie in (0, 1]")
        if start not in ("bottom", "top"):
            raise ValueError(f"start is {start!r}: expected 'bottom' or 'top'")

        def complement(part: SiteEdit) -> SiteEdit:
            if part.added is not None:
                raise ValueError("an edit that adds a matrix to the weight has no discarded part")
            gains = 1 - part.gains
            directions = gains.nonzero().squeeze(1)
            if len(directions) == 0:
                raise ValueError("this edit discards nothing: all its gains are 1")
            n = math.ceil(round(share * len(directions), 9))
            gains[directions[:-n] if start == "bottom" else directions[n:]] = 0
            return replace(part, gains=gains)

        parts = {site: complement(part) for site, part in self.parts.items()}
        return self.with_parts(parts, "discarded" if share == 1 else f"discarded-{start}-{share:g}")

    def inject(self, alpha: float) -> Edit:
        """This edit, plus `alpha` times what it takes away: 0 is the edit, 1 the model as trained."""
        if not math.isfinite(alpha):
            raise ValueError(f"alpha is {alpha}: expected a finite number")
        parts = {
            site: replace(
                part,
                gains=part.gains + alpha * (1 - part.gains),
                added=part.added and ((1 - alpha) * part.added[0], part.added[1]),
            )
            for site, part in self.parts.items()
        }
        return self.with_parts(parts, "inject", alpha)

    def save(self, path: str | FilePath, *, model: Model | None = None) -> FilePath:
        """Write this edit as a JSON file, for `li.load_edit`; see `laser_interp.edits.edit_files`.

        Args:
            path: a name that ends in .json.
            model: named in the file, where it is given.

        Raises:
            ValueError: another ending, or an edit that was patched from other prompts.
            FileExistsError: the gains need a safetensors file of the same name, and there is one that is no edit's.

        Example:
            >>> li.laser(model, "3.in", rho=0.05).save("laser.json")
        """
        about = {name: getattr(self, name) for name in ("kind", "rho", "alpha", "path")}
        return write_edit(path, self.parts, about, self.placement, model)

    def check(self, model: Model) -> None:
        """Refuse a model on which this edit cannot act.

        Raises:
            ValueError: the edit was made from other weights, or the model has no such site or no such path.
        """
        check_model(model)
        for site, part in self.parts.items():
            resolve(model, site)
            check_linear(model, site.layer, site.matrix)
            if site_sha256(model, site) != part.spectrum.weight_sha256:
                raise ValueError(
                    f"this edit of {site} was made from other weights than those of {model.name!r}: "
                    "make it again from this model"
                )
            if self.path != "network" and (why := why_not_additive(model, site.matrix)):
                raise ValueError(f"{site} has no {self.path} path: {why}")

    @contextmanager
    def on(self, model: Model) -> Iterator[Model]:
        """The model with this edit, until the context ends.

        Contexts nest; gains of nested edits of one site multiply.

        Raises:
            ValueError: the edit was made from another model's weights; it is nested with one that does not act
                everywhere; another thread is using the model; or an edit is left before one that was entered after
                it.
        """
        self.check(model)
        with exclusive_use(model):
            before = active_edits(model)
            if before and not (self.is_plain and all_are_plain(model)):
                raise ValueError("an edit at chosen positions, or on one path, is not nested with another: add them")
            combined = {site: part.times(before[site]) if site in before else part for site, part in self.parts.items()}
            with entered(model, before | combined, self.is_plain) as entry:
                rewrites = {
                    (site.layer, site.matrix): _while_on(
                        entry, placement.at_positions(model, site, part.rewrite(model, site), self.placement)
                    )
                    for site, part in combined.items()
                }
                # An inner hook runs after the outer one and recomputes the output from the site's input alone.
                with rewriting(model, rewrites, self.path):
                    yield model


def _while_on(entry: Entered, rewrite: Rewrite) -> Rewrite:
    """A rewrite that leaves everything as it is once its edit is off."""
    return lambda x, y: rewrite(x, y) if entry.is_on else y
