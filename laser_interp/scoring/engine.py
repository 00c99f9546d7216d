"""Many edits at once, each computing only what it changes.

What an edit leaves as it is is computed once for all of them: the layers below it, and of its own layer
everything that its matrices do not reach. From there on several edits run side by side in one batch.
`Model.run` computes the pieces; here is decided which. The plain path, one full forward for each edit with
its hooks on, is `engine="reference"` of `li.score`; the two agree to 1e-5 in fp32.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.edit import Edit, SiteEdit
from laser_interp.edits.sites import GROUPS, Site
from laser_interp.models.model import Batch, Compute, Model, Record, Rewrite

Read = tuple[int, int]  # (row, position)

# Few enough tokens that a layer's activations stay in a processor's cache, enough that its matrix products
# run at full rate; a device with its own memory takes as many as fit.
CPU_CHUNK_TOKENS, CPU_TOKENS = 256, 2048
DEVICE_CHUNK_TOKENS, DEVICE_TOKENS = 4096, 65536
CPU_MEMORY = 2 << 30

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_memory(memory: int | str | None, model: Model) -> int:
    """Bytes that activations may take: a number, "800MB", "2GiB"; None is a default for the device.

    Raises:
        ValueError: text of another form, or less than a megabyte.
    """
    if memory is None:
        if model.device.type == "cuda":
            total = torch.cuda.get_device_properties(model.device).total_memory
            return int(0.6 * max(total - model.n_bytes, total // 10))
        return CPU_MEMORY
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", memory)
        if not found or found[2].upper() not in _UNITS:
            raise ValueError(f"memory is {memory!r}: expected a number of bytes, or text such as '800MB' or '2GiB'")
        memory = int(float(found[1]) * _UNITS[found[2].upper()])
    if memory < 1_000_000:
        raise ValueError(f"memory is {memory} bytes: at least a megabyte is needed")
    return memory


@dataclass
class _Chunk:
    """Rows that run together, and what is known of them under the model as trained."""

    batch: Batch
    reads: list[int]  # which of the engine's reads the batch's are
    layer: int = 0
    residual: Tensor | None = None  # entering `layer`
    record: Record | None = None  # of `layer`
    next_residual: Tensor | None = None  # leaving `layer`, where there is a record


class _Group:
    """Edits that begin in one layer and touch the same matrices of it, in the same directions, so that the same things
    stay as they are."""

    def __init__(self, model: Model, layer: int | None, edits: list[tuple[int, Edit | None]]) -> None:
        self.model, self.layer, self.edits = model, layer, edits
        touched = {site.matrix for _, edit in edits if edit for site in edit.parts if site.layer == layer}
        below = _downstream(model.is_parallel(layer)) if layer is not None else {}
        changed = touched.union(*(below[m] for m in touched))
        self.unchanged = [m for m in model.matrices if m not in changed]
        # Their input is the same under every edit.
        self.sharing = {m for m in touched if not any(m in below[other] for other in touched)}
        self.sites = sorted({site for _, edit in edits if edit for site in edit.parts})
        self._factors: dict[Site, _Factors] = {}
        self._rewrites: dict[tuple[int, Site], Rewrite] = {}

    def parts(self, most: int) -> list[_Pass]:
        """In passes of about equal size, none of more than `most` edits."""
        n = -(-len(self.edits) // most)
        bounds = [round(i * len(self.edits) / n) for i in range(n + 1)]
        return [_Pass(self, list(range(a, b))) for a, b in itertools.pairwise(bounds)]

    def linear(self, which: Sequence[int]) -> tuple[dict[tuple[int, str], Compute], set[tuple[int, str]]]:
        """What computes each edited matrix when some of the edits run side by side, and which do so from one input."""
        out: dict[tuple[int, str], Compute] = {}
        shared = set()
        for site in self.sites:
            at = (site.layer, site.matrix)
            if site.layer == self.layer and site.matrix in self.sharing and len(self.edits) > 1:
                if site not in self._factors:
                    self._factors[site] = _Factors(
                        self.model, site, [self._part(i, site) for i in range(len(self.edits))]
                    )
                out[at] = self._factors[site].of(which)
                shared.add(at)
            else:
                out[at] = self._one_by_one(site, which)
        return out, shared

    def _part(self, i: int, site: Site) -> SiteEdit | None:
        edit = self.edits[i][1]
        return None if edit is None else edit.parts.get(site)

    def _rewrite(self, i: int, site: Site) -> Rewrite | None:
        part = self._part(i, site)
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
            found = [original(x) if f is None else f(x, x) for x, (f, _) in zip(parts, runs, strict=True)]
            return found[0] if len(found) == 1 else torch.cat(found)

        return compute


@dataclass
class _Pass:
    """Edits of a group that run side by side."""

    group: _Group
    which: list[int]

    def halves(self) -> list[_Pass]:
        middle = len(self.which) // 2
        return [_Pass(self.group, self.which[:middle]), _Pass(self.group, self.which[middle:])]


class _Factors:
    """A matrix under several edits that all see the same input: `x U` is computed once for all of them."""

    def __init__(self, model: Model, site: Site, parts: Sequence[SiteEdit | None]) -> None:
        edits = [part for part in parts if part is not None]
        assert len(edits) == len(parts), "the edits of a group touch the same matrices of its layer"
        spectrum = edits[0].spectrum
        dtype = torch.promote_types(model.dtype, torch.float32)
        device = model.weight(site.layer, site.matrix).device
        used = torch.stack([part.gains != 0 for part in edits]).any(0).nonzero().squeeze(1)
        self._down = (spectrum.U[:, used].double() * spectrum.S[used]).to(device, dtype)
        self._up = spectrum.Vh[used].to(device, dtype)
        bias = model.bias(site.layer, site.matrix)
        self._bias = None if bias is None else bias.to(device, dtype)
        self._dtype = dtype
        self._kept: list[tuple[slice, Tensor | None]] = []
        self._added = []
        for part in edits:
            gains = part.gains[used]
            held = gains.nonzero().squeeze(1)
            kept = slice(int(held[0]), int(held[-1]) + 1) if len(held) else slice(0, 0)
            inside = gains[kept]
            self._kept.append((kept, None if bool((inside == 1).all()) else inside.to(device, dtype)))
            self._added.append(part.added and tuple(one.to(device, dtype) for one in part.added))

    def of(self, which: Sequence[int]) -> Compute:
        """From one input, the outputs under some of the edits, one after the other."""

        def compute(x: Tensor, original: Any) -> Tensor:
            n = len(x)
            x0 = x.to(self._dtype)
            stop = max(self._kept[i][0].stop for i in which)
            z = x0 @ self._down[:, :stop]
            out = torch.empty(len(which) * n, self._up.shape[1], dtype=self._dtype, device=x.device)
            for place, i in enumerate(which):
                kept, gains = self._kept[i]
                row = out[place * n : (place + 1) * n]
                scaled = z[:, kept] if gains is None else z[:, kept] * gains
                torch.mm(scaled, self._up[kept], out=row)
                if (added := self._added[i]) is not None:
                    row += (x0 @ added[0]) @ added[1]
            if self._bias is not None:
                out += self._bias
            return out.to(x.dtype)

        return compute


def _downstream(parallel: bool) -> dict[str, set[str]]:
    """What an edit of a matrix changes in its own layer, beside the matrix's own output."""
    mlp = set(GROUPS["mlp"])
    after_attention = set() if parallel else mlp
    below: dict[str, set[str]] = {m: {"o"} | after_attention for m in ("q", "k", "v")}
    return below | {"o": after_attention, "in": {"out"}, "gate": {"out"}, "out": set()}


def _groups(model: Model, edits: Sequence[Edit | None]) -> list[_Group]:
    """From the first layer to the last; the model as trained comes last, where most of it is known."""
    found: dict[tuple[int, tuple[str, ...], tuple[str, ...]], list[tuple[int, Edit | None]]] = {}
    for i, edit in enumerate(edits):
        if edit is None:
            key = (model.n_layers, (), ())
        else:
            edit.check(model)
            first = min(site.layer for site in edit.parts)
            parts = [(site.matrix, edit.parts[site].spectrum) for site in edit.sites if site.layer == first]
            # A group's edits are gains on the same directions, and a whitened spectrum has its own.
            bases = tuple("" if known.metric == "weights" else str(id(known)) for _, known in parts)
            key = (first, tuple(matrix for matrix, _ in parts), bases)
        found.setdefault(key, []).append((i, edit))
    return [_Group(model, None if key[0] == model.n_layers else key[0], found[key]) for key in sorted(found)]


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)  # torch's on a CPU


class Engine:
    """Token sequences that are read at some places, under any number of edits.

    Args:
        rows: token ids.
        reads: (row, position) pairs whose next-token logits are wanted. Rows nobody reads are not run.
        memory: bytes that activations may take.
        keep: bytes that residual streams may take between one `run` and the next; with enough for all
            rows, a run of edits in a layer goes on from the layer of the run before.
    """

    def __init__(
        self, model: Model, rows: Sequence[Sequence[int]], reads: Sequence[Read], *, memory: int, keep: int = 0
    ) -> None:
        self.model = model
        self.rows, self.reads = rows, reads
        self.memory = memory
        on_cpu = model.device.type == "cpu"
        self._most_tokens = CPU_TOKENS if on_cpu else DEVICE_TOKENS
        # A copy of a token in one layer, and a row of logits, in fp32 as the families' attention computes them.
        config = model.bridge.cfg
        inner = int(getattr(config, "d_mlp", None) or 4 * model.d_model)
        self._token_bytes = 4 * (12 * model.d_model + 5 * inner)
        self._attention_bytes = 4 * 3 * int(config.n_heads)
        self._logits_bytes = 12 * model.d_vocab
        self._edits_at_once: int | None = None  # lowered where memory ran out
        self._chunks = [self._chunk(*part) for part in self._parts(CPU_CHUNK_TOKENS if on_cpu else DEVICE_CHUNK_TOKENS)]
        places = sum(chunk.batch.ids.numel() for chunk in self._chunks)
        self._keeps = places * model.d_model * model.dtype.itemsize <= keep

    # --- which rows run together ----------------------------------------------------------------

    def _parts(self, most_tokens: int) -> Iterator[tuple[list[int], list[int]]]:
        """Rows of about equal length, those that begin alike side by side: (rows, reads of them)."""
        wanted: dict[int, list[int]] = {}
        for index, (row, _) in enumerate(self.reads):
            wanted.setdefault(row, []).append(index)
        order = sorted(wanted, key=lambda row: (len(self.rows[row]), list(self.rows[row])))
        part: list[int] = []
        longest = n_reads = 0
        for row in order:
            length = len(self.rows[row])
            tokens = (len(part) + 1) * length
            fits = self._bytes(len(part) + 1, length, n_reads + len(wanted[row])) <= self.memory
            # Padding is not computed, but it is carried: a longer row waits for the next part if this one is worth it.
            alike = length == longest or (self.model.may_pad and len(part) * longest < most_tokens // 2)
            if part and not (fits and alike and tokens <= most_tokens):
                yield part, [index for one in part for index in wanted[one]]
                part, n_reads = [], 0
            part.append(row)
            longest, n_reads = length, n_reads + len(wanted[row])
        if part:
            yield part, [index for one in part for index in wanted[one]]

    def _bytes(self, rows: int, longest: int, reads: int) -> int:
        tokens = rows * longest
        return tokens * (self._token_bytes + longest * self._attention_bytes) + reads * self._logits_bytes

    def _chunk(self, rows: list[int], reads: list[int]) -> _Chunk:
        slot = {row: i for i, row in enumerate(rows)}
        places = [(slot[self.reads[index][0]], self.reads[index][1]) for index in reads]
        return _Chunk(self.model.batch([self.rows[row] for row in rows], places), reads)

    def _halves(self, chunk: _Chunk) -> list[_Chunk]:
        """A chunk as two, with its residual stream but without what can be computed again."""
        order = list(dict.fromkeys(self.reads[index][0] for index in chunk.reads))
        middle = len(order) // 2
        out = []
        for rows, place in ((order[:middle], slice(None, middle)), (order[middle:], slice(middle, None))):
            mine = set(rows)
            part = self._chunk(rows, [index for index in chunk.reads if self.reads[index][0] in mine])
            if chunk.residual is not None:
                part.layer, part.residual = chunk.layer, chunk.residual[place, : part.batch.shape[1]]
            out.append(part)
        return out

    # --- running --------------------------------------------------------------------------------

    def run(self, edits: Sequence[Edit | None]) -> Iterator[tuple[int, list[int], Float[Tensor, "reads d_vocab"]]]:
        """Next-token logits under each edit (None: the model as trained).

        Yields:
            Index of the edit, indices of the reads, and their logits in fp32 (fp64 for an fp64 model).
            Together they cover every (edit, read) exactly once.

        Raises:
            ValueError: an edit made from another model's weights, or one that is on already; before
                anything is run.
            MemoryError: one prompt under one edit does not fit.
        """
        if self.model.active:
            raise ValueError("an edit is on: this runs edits of the model as trained, outside of `with edit.on(model)`")
        groups = _groups(self.model, edits)
        in_layer = Counter(group.layer for group in groups for _ in group.edits)
        tasks = [(chunk, self._passes(chunk, groups)) for chunk in reversed(self._chunks)]
        done = []
        while tasks:
            chunk, todo = tasks.pop()
            while todo:
                try:
                    logits = self._pass(chunk, todo[0], record=in_layer[todo[0].group.layer] > 1)
                except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                    if not _is_out_of_memory(error):
                        raise
                    tasks += reversed(self._smaller(chunk, todo, error))
                    break
                one = todo.pop(0)
                for place, i in enumerate(one.which):
                    n = len(chunk.reads)
                    yield one.group.edits[i][0], chunk.reads, logits[place * n : (place + 1) * n]
                del logits
            else:
                chunk.record = chunk.next_residual = None
                if not self._keeps:
                    chunk.layer, chunk.residual = 0, None
                done.append(chunk)
        self._chunks = done

    def _passes(self, chunk: _Chunk, groups: Sequence[_Group]) -> list[_Pass]:
        """The edits in passes that fit the budget and, on a CPU, its cache."""
        rows, longest = chunk.batch.shape
        most = min(
            self.memory // self._bytes(rows, longest, len(chunk.reads)),
            self._most_tokens // (rows * longest),
            self._edits_at_once or len(self.reads) + 10**6,
        )
        return [one for group in groups for one in group.parts(max(most, 1))]

    def _smaller(self, chunk: _Chunk, todo: list[_Pass], error: BaseException) -> list[tuple[_Chunk, list[_Pass]]]:
        """What ran out of memory, in halves: of the edits first, then of the rows."""
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        chunk.record = chunk.next_residual = None
        n_edits = len(todo[0].which)
        if n_edits > 1:
            self._edits_at_once = (n_edits + 1) // 2
            rest = [half for one in todo for half in (one.halves() if len(one.which) > self._edits_at_once else [one])]
            return [(chunk, rest)]
        if chunk.batch.shape[0] > 1:
            return [(half, list(todo)) for half in self._halves(chunk)]
        longest = chunk.batch.shape[1]
        raise MemoryError(f"one prompt of {longest} tokens under one edit does not fit in memory") from error

    def _pass(self, chunk: _Chunk, one: _Pass, *, record: bool) -> Tensor:
        """Logits under the edits of one pass, edit by edit."""
        group = one.group
        if group.layer is None:
            return self.model.run(chunk.batch, start=chunk.layer, residual=chunk.residual)
        self._reach(chunk, group.layer, record)
        copies = len(one.which)
        linear, shared = group.linear(one.which)
        half: dict[tuple[int, str], Any] = {}
        if chunk.record is not None:
            same_attention = all(m in group.unchanged for m in _of_half(self.model, "attn"))
            same_mlp_input = (same_attention or self.model.is_parallel(group.layer)) and self.model.has_mlp_module(
                group.layer
            )
            if same_mlp_input:
                shared.add((group.layer, "mlp"))
            for name in ("attn", "mlp"):
                if name in chunk.record.half and all(m in group.unchanged for m in _of_half(self.model, name)):
                    half[group.layer, name] = chunk.record.half[name]
            for m in group.unchanged:
                # Beside an edited matrix of the MLP the other one is wanted for each copy.
                alone = same_mlp_input and group.sharing == {"out"}
                linear[group.layer, m] = _known(chunk.record.linear[m], 1 if alone and m in GROUPS["mlp"] else copies)
                shared.add((group.layer, m))
        return self.model.run(
            chunk.batch,
            copies=copies,
            start=group.layer,
            residual=chunk.residual,
            linear=linear,
            shared=shared,
            half=half,
        )

    def _reach(self, chunk: _Chunk, layer: int, record: bool) -> None:
        """Bring what is known of a chunk to a layer: the residual stream that enters it, and what it computes."""
        if chunk.layer != layer:
            if chunk.layer < layer and chunk.next_residual is not None:
                chunk.layer, chunk.residual = chunk.layer + 1, chunk.next_residual
            chunk.record = chunk.next_residual = None
        if chunk.layer > layer:
            chunk.layer, chunk.residual = 0, None
        if chunk.layer < layer:
            chunk.residual = self.model.run(chunk.batch, start=chunk.layer, residual=chunk.residual, stop=layer)
            chunk.layer = layer
        if record and chunk.record is None:
            found = Record()
            after = self.model.run(chunk.batch, start=layer, residual=chunk.residual, stop=layer + 1, record=found)
            chunk.record, chunk.next_residual = found, after


def _of_half(model: Model, name: str) -> list[str]:
    return [m for m in model.matrices if m in GROUPS[name]]


def _known(output: Tensor, copies: int) -> Compute:
    return lambda x, original: output.repeat(copies, 1) if copies > 1 else output


def operations(model: Model, site: Site, ranks: Sequence[int], lengths: Sequence[int]) -> float:
    """Floating-point operations that scoring LASER at one site really needs, for all its ranks together.

    A multiplication and an addition count as two, and only matrix products count. With n tokens a prompt
    of which the last is read, and P(m) the size of a weight, each rank needs, for each prompt:

    - in each layer above the site `2 n ΣP + 2 n² d_attn`, where causal attention looks at half of n²
      places, for scores and values; in the last layer `2 n` for k and v alone, else `2`, and `4 n d_attn`;
    - in the site's own layer the same for the matrices that its output reaches;
    - `2 n r d_out` for the site itself, `2` instead of `2 n` in the last layer but for k and v;
    - one row of the unembedding, `2 d_model d_vocab`;

    and all ranks together `2 n r_max d_in` for `x U`. Prompts with equal beginnings need less than this.
    """
    last = model.n_layers - 1
    below = _downstream(model.is_parallel(site.layer))[site.matrix]
    size = {m: model.weight(site.layer, m).numel() for m in model.matrices}
    d_attn = model.weight(site.layer, "o").shape[0]
    d_in, d_out = model.weight(site.layer, site.matrix).shape

    def layer(n: int, matrices: set[str], is_last: bool, attention: bool) -> float:
        places = {m: n if m in ("k", "v") or not is_last else 1 for m in model.matrices}
        products = sum(2.0 * places[m] * size[m] for m in model.matrices if m in matrices)
        return products + (2.0 * n * d_attn * (2 if is_last else n) if attention else 0.0)

    total = 0.0
    for n in lengths:
        each = 2.0 * model.d_model * model.d_vocab
        if site.layer < last:
            each += (last - 1 - site.layer) * layer(n, set(size), False, True) + layer(n, set(size), True, True)
        each += layer(n, below, site.layer == last, site.matrix in ("q", "k", "v"))
        at = n if site.layer < last or site.matrix in ("k", "v") else 1
        total += len(ranks) * each + 2.0 * at * (sum(ranks) * d_out + max(ranks) * d_in)
    return total
