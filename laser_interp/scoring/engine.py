"""Many edits at once, each computing only what it changes.

1. The layers below an edit are computed once for all edits. So is, in the edit's own layer, everything that its
   matrices do not reach.
2. From there on several edits run side by side in one batch, with as many rows as the memory budget holds.
3. Where edits act at chosen positions, what comes before these is as trained: its keys and values are computed once.

This file decides what is computed; `laser_interp.models.partial_runs` computes it. The plain path, one full forward
pass for each edit with its hooks on, is `engine="reference"` of `li.score`. The two agree to 1e-5 in fp32.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from laser_interp.edits.edit import Edit
from laser_interp.edits.sites import GROUPS
from laser_interp.models.forward import may_run_together
from laser_interp.models.hooks import beginnings_of
from laser_interp.models.in_use import refuse_inside_edit
from laser_interp.models.model import Model
from laser_interp.models.partial_runs import (
    Batch,
    Compute,
    Record,
    Reuse,
    has_mlp_module,
    make_batch,
    only_changed,
    run,
)
from laser_interp.models.residual_stream import is_parallel
from laser_interp.models.unembedding import Logits, logits_of, multiplies_in_blocks
from laser_interp.scoring.kept_streams import KeptStreams, kept_streams, key_of
from laser_interp.scoring.side_by_side import Pass, Positions, SharedLayer, group_edits

Read = tuple[int, int]  # (row, position)

# Tokens of one part of the rows, and of a pass, which may hold a part under several edits. On a processor, more do not
# make the matrix products faster; with a quarter of this, full passes took a fifth longer. A device with its own
# memory takes as many as fit.
CPU_CHUNK_TOKENS, CPU_TOKENS = 2048, 4096
DEVICE_CHUNK_TOKENS, DEVICE_TOKENS = 4096, 65536
MOST_PADDING = 4  # positions in rows that share their beginnings, for each token that is computed
MARKS = 5  # layers at which residual streams are kept on the way, so that a later run has little left to compute


@dataclass
class _Chunk:
    """Rows that run together, and what is known of them under the model as trained."""

    batch: Batch
    reads: list[int]  # which of the engine's reads the batch's are
    layer: int = 0
    residual: Tensor | None = None  # entering `layer`
    record: Record | None = None  # of `layer`
    next_residual: Tensor | None = None  # leaving `layer`, where there is a record
    keys_values: dict[tuple[int, str], Tensor] = field(default_factory=dict)  # as trained
    changed: dict[int, tuple[Batch, list[Any]]] = field(default_factory=dict)  # by the identity of the positions

    def forget(self) -> None:
        """Drop what is known, so that the next run starts anew."""
        self.layer, self.residual = 0, None
        self.record = self.next_residual = None
        self.keys_values, self.changed = {}, {}


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)  # torch's on a CPU


def _n_shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two rows have in common at their beginnings."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def activation_bytes(model: Model, budget: int, n_prompts: int, length: int) -> int:
    """Bytes that a run of so many prompts takes beside the weights: a pass, and the streams kept from run to run."""
    most_tokens = CPU_TOKENS if model.device.type == "cpu" else DEVICE_TOKENS
    rows = min(n_prompts, max(most_tokens // length, 1))
    engine = Engine(model, [], [], memory=budget)
    streams = n_prompts * length * model.d_model * model.dtype.itemsize * (MARKS + 1)
    return min(engine._bytes(rows, length, rows), budget) + min(streams, budget // 2)


class Engine:
    """Token sequences that are read at some positions, under any number of edits.

    Args:
        rows: token ids.
        reads: (row, position) pairs whose next-token logits are wanted. Rows nobody reads are not run.
        memory: bytes that activations may take. Up to half as many may be kept from one run to the next; see
            `laser_interp.scoring.kept_streams`.
    """

    def __init__(self, model: Model, rows: Sequence[Sequence[int]], reads: Sequence[Read], *, memory: int) -> None:
        self.model = model
        self.rows, self.reads = rows, reads
        self.memory = memory
        on_cpu = model.device.type == "cpu"
        self._most_tokens = CPU_TOKENS if on_cpu else DEVICE_TOKENS
        # A copy of a token in one layer, in fp32 as the families' attention computes them.
        self._token_bytes = 4 * (12 * model.d_model + 5 * model.d_mlp)
        self._attention_bytes = 4 * 3 * model.n_heads
        self._kept = KeptStreams()
        self._marks = {round(model.n_layers * i / (MARKS + 1)) for i in range(1, MARKS + 1)} - {model.n_layers}
        self._edits_at_once: int | None = None  # lowered where memory ran out
        self._chunks = [self._chunk(*part) for part in self._parts(CPU_CHUNK_TOKENS if on_cpu else DEVICE_CHUNK_TOKENS)]

    # --- which rows run together ----------------------------------------------------------------

    def _parts(self, most_tokens: int) -> list[tuple[list[int], list[int]]]:
        """Rows that run together, in the order with fewer tokens to compute: (rows, reads of them).

        By length, there is little padding. By their beginnings, rows share more: where three examples stand before
        each prompt, most of it.
        """
        wanted: dict[int, list[int]] = {}
        for index, (row, _) in enumerate(self.reads):
            wanted.setdefault(row, []).append(index)
        by_length = sorted(wanted, key=lambda row: (len(self.rows[row]), list(self.rows[row])))
        n_tokens, parts = self._in_parts(by_length, wanted, most_tokens, padding=1)
        if not self.model.masked:
            by_beginning = sorted(wanted, key=lambda row: list(self.rows[row]))
            n_shared, sharing = self._in_parts(by_beginning, wanted, most_tokens, padding=MOST_PADDING)
            if n_shared * MOST_PADDING < n_tokens * (MOST_PADDING - 1):
                parts = sharing
        return [(part, [index for row in part for index in wanted[row]]) for part in parts]

    def _in_parts(
        self, order: Sequence[int], wanted: Mapping[int, Sequence[int]], most_tokens: int, padding: int
    ) -> tuple[int, list[list[int]]]:
        """Rows in parts, in this order, and the number of tokens to compute. Padding is not computed, but it takes
        memory and time: a part has at most `padding` positions for each of `most_tokens`."""
        parts: list[list[int]] = []
        total = computed = shortest = longest = n_reads = 0
        for before, row in zip([None, *order], order, strict=False):
            ids = self.rows[row]
            new = len(ids) if before is None else len(ids) - _n_shared(self.rows[before], ids)
            if parts:
                n_rows, length = len(parts[-1]) + 1, max(longest, len(ids))
                n_positions = n_rows * length
                if padding == 1:  # a longer row starts a new part if this one is half full
                    alike = len(ids) == longest or len(parts[-1]) * longest < most_tokens // 2
                else:
                    alike = computed + new <= most_tokens
                fits = (
                    alike
                    and n_positions <= padding * most_tokens
                    and self._bytes(n_rows, length, n_reads + len(wanted[row])) <= self.memory
                    and may_run_together(self.model, min(shortest, len(ids)), length)
                )
            if not parts or not fits:
                parts.append([])
                new, computed, n_reads, shortest, longest = len(ids), 0, 0, len(ids), 0
            parts[-1].append(row)
            total, computed, n_reads = total + new, computed + new, n_reads + len(wanted[row])
            shortest, longest = min(shortest, len(ids)), max(longest, len(ids))
        return total, parts

    def _bytes(self, rows: int, longest: int, reads: int) -> int:
        in_blocks, tokens = multiplies_in_blocks(self.model), rows * longest
        of_logits = 4 * self.model.d_model if in_blocks else 16 * self.model.d_vocab
        return tokens * (self._token_bytes + longest * self._attention_bytes) + reads * of_logits

    def _chunk(self, rows: list[int], reads: list[int]) -> _Chunk:
        slot = {row: i for i, row in enumerate(rows)}
        at = [(slot[self.reads[index][0]], self.reads[index][1]) for index in reads]
        return _Chunk(make_batch(self.model, [self.rows[row] for row in rows], at), reads)

    def _halves(self, chunk: _Chunk) -> list[_Chunk]:
        """A chunk as two, with its residual stream but without what can be computed again."""
        order = list(dict.fromkeys(self.reads[index][0] for index in chunk.reads))
        middle = len(order) // 2
        out = []
        for rows, place in ((order[:middle], slice(None, middle)), (order[middle:], slice(middle, None))):
            mine = set(rows)
            part = self._chunk(rows, [index for index in chunk.reads if self.reads[index][0] in mine])
            if chunk.residual is not None:
                # A copy: a view would keep the memory of the whole
                part.layer, part.residual = chunk.layer, chunk.residual[place, : part.batch.shape[1]].clone()
            out.append(part)
        return out

    # --- running --------------------------------------------------------------------------------

    def run(self, edits: Sequence[Edit | None]) -> Iterator[tuple[list[int], list[int], Logits]]:
        """Next-token logits under each edit (None: the model as trained).

        Yields:
            Indices of some edits, indices of the reads, and the logits of all these reads under the first edit, then
            the second, and so on, in fp32 (fp64 for an fp64 model). Together they cover every (edit, read) once.

        Raises:
            ValueError: an edit made from another model's weights, or one that is on already; before
                anything is run.
            MemoryError: one prompt under one edit does not fit.
        """
        refuse_inside_edit(self.model, "running edits side by side")
        self._kept = kept_streams(self.model)
        try:
            yield from self._run(edits)
        finally:  # also where the caller stops half-way: a later run must not start from what may have changed since
            for chunk in self._chunks:
                chunk.forget()

    def _run(self, edits: Sequence[Edit | None]) -> Iterator[tuple[list[int], list[int], Logits]]:
        groups = group_edits(self.model, edits)
        in_layer = Counter(group.layer for group in groups for _ in group.edits)
        if any(group.positions is not None for group in groups):
            self._chunks = [part for chunk in self._chunks for part in self._with_keys_values(chunk)]
        tasks = [(chunk, self._passes(chunk, groups)) for chunk in reversed(self._chunks)]
        finished = []
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
                done = todo.pop(0)
                yield [done.group.edits[i][0] for i in done.which], chunk.reads, logits
                del logits
            else:
                if chunk.residual is not None:
                    self._kept.keep(key_of(self.model, chunk.batch), chunk.layer, chunk.residual, self.memory // 2)
                chunk.forget()
                finished.append(chunk)
        self._chunks = finished

    def _passes(self, chunk: _Chunk, groups: Sequence[SharedLayer]) -> list[Pass]:
        """The edits in passes that fit the budget and, on a CPU, its cache."""
        rows, longest = chunk.batch.shape
        passes: list[Pass] = []
        for group in groups:
            batch = chunk.batch if group.positions is None else self._changed(chunk, group.positions)[0]
            most = min(
                self.memory // self._bytes(rows, longest, len(chunk.reads)),
                self._most_tokens // max(len(batch.tokens), rows * longest // MOST_PADDING),
                self._edits_at_once or len(self.reads) + 10**6,
            )
            passes += group.parts(max(most, 1))
        return passes

    def _smaller(self, chunk: _Chunk, todo: list[Pass], error: BaseException) -> list[tuple[_Chunk, list[Pass]]]:
        """What ran out of memory, in halves: of the edits first, then of the rows."""
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        chunk.record = chunk.next_residual = None
        n_edits = len(todo[0].which)
        if n_edits > 1:
            self._edits_at_once = (n_edits + 1) // 2
            rest = [
                p for whole in todo for p in (whole.halves() if len(whole.which) > self._edits_at_once else [whole])
            ]
            return [(chunk, rest)]
        if chunk.batch.shape[0] > 1:
            return [(half, list(todo)) for half in self._halves(chunk)]
        longest = chunk.batch.shape[1]
        raise MemoryError(f"one prompt of {longest} tokens under one edit does not fit in memory") from error

    def _pass(self, chunk: _Chunk, edits: Pass, *, record: bool) -> Logits:
        """Logits under the edits of one pass, edit by edit."""
        group = edits.group
        if group.layer is None:
            self._look_up(chunk, self.model.n_layers)
            return logits_of(self.model, self._as_trained(chunk, None))
        self._reach(chunk, group.layer, record and group.positions is None)
        copies = len(edits.which)
        if group.positions is not None:
            return self._placed_pass(chunk, edits, group.positions)
        linear, shared = group.linear(edits.which)
        sublayer: dict[tuple[int, str], Any] = {}
        if chunk.record is not None:
            changed = [m for m in self.model.matrices_of(group.layer) if m not in group.unchanged]
            changes = {"attn" if self.model.maps[group.layer, m].mixes else "mlp" for m in changed}
            sublayer = {(group.layer, name): out for name, out in chunk.record.sublayer.items() if name not in changes}
            same_mlp_input = has_mlp_module(self.model, group.layer) and (
                "attn" not in changes or is_parallel(self.model, group.layer)
            )
            if same_mlp_input:
                shared.add((group.layer, "mlp"))
            for m in chunk.record.linear.keys() & set(group.unchanged):
                # Beside an edited matrix of the MLP the other one is wanted for each copy.
                alone = same_mlp_input and group.sharing == {"out"}
                n_copies = 1 if alone and m in GROUPS["mlp"] else copies
                linear[group.layer, m] = _recorded(chunk.record.linear[m], n_copies)
                shared.add((group.layer, m))
        reuse = Reuse(linear, shared, sublayer)
        return self._logits(chunk, chunk.batch, copies, reuse)

    def _placed_pass(self, chunk: _Chunk, edits: Pass, positions: Positions) -> Logits:
        """Logits under edits at some positions. What comes before these is as trained; its keys and values are kept."""
        if (chunk.layer, "k") not in chunk.keys_values:
            self._as_trained(chunk, self.model.n_layers, chunk.keys_values)
        batch, acts = self._changed(chunk, positions)
        reuse = Reuse(edits.group.placed(edits.which, acts), as_trained=chunk.keys_values)
        return self._logits(chunk, batch, len(edits.which), reuse)

    def _logits(self, chunk: _Chunk, batch: Batch, copies: int, reuse: Reuse) -> Logits:
        start, residual, unembed = chunk.layer, chunk.residual, not multiplies_in_blocks(self.model)
        found = run(self.model, batch, copies=copies, start=start, residual=residual, reuse=reuse, unembed=unembed)
        return logits_of(self.model, found)

    def _with_keys_values(self, chunk: _Chunk) -> list[_Chunk]:
        """A chunk in parts whose keys and values in all layers take at most half of the memory."""
        size = len(chunk.batch.tokens) * 2 * self.model.d_model * self.model.dtype.itemsize * self.model.n_layers
        if size <= self.memory // 2 or chunk.batch.shape[0] == 1:
            return [chunk]
        return [part for half in self._halves(chunk) for part in self._with_keys_values(half)]

    def _changed(self, chunk: _Chunk, positions: Positions) -> tuple[Batch, list[Any]]:
        """The batch with the tokens alone that edits at some positions change, and what is done at each."""
        if id(positions) not in chunk.changed:
            which = list(dict.fromkeys(self.reads[index][0] for index in chunk.reads))
            rows = [self.rows[row] for row in which]
            keys = beginnings_of(self.model, rows, positions)
            acts = [{p: (key, n) for n, p in enumerate(positions[key])} for key in keys]
            first = dict(zip(which, map(min, acts), strict=True))
            for row, position in (self.reads[index] for index in chunk.reads):
                first[row] = min(first[row], position)
            chunk.changed[id(positions)] = only_changed(chunk.batch, rows, acts, list(first.values()))
        return chunk.changed[id(positions)]

    def _reach(self, chunk: _Chunk, layer: int, record: bool) -> None:
        """Bring what is known of a chunk to a layer: the residual stream that enters it, and what it computes."""
        if chunk.layer != layer:
            if chunk.layer < layer and chunk.next_residual is not None:
                chunk.layer, chunk.residual = chunk.layer + 1, chunk.next_residual
            chunk.record = chunk.next_residual = None
        if chunk.layer > layer:
            chunk.layer, chunk.residual = 0, None
        self._look_up(chunk, layer)
        if chunk.layer < layer:
            chunk.residual = self._as_trained(chunk, layer)
            chunk.layer = layer
        if record and chunk.record is None:
            record_of_layer = Record()
            chunk.next_residual = run(
                self.model, chunk.batch, start=layer, residual=chunk.residual, stop=layer + 1, record=record_of_layer
            )
            chunk.record = record_of_layer

    def _as_trained(
        self, chunk: _Chunk, stop: int | None, keys_values: dict[tuple[int, str], Tensor] | None = None
    ) -> Tensor:
        """Run on from where a chunk is, without edits, and keep the streams at the marks that are passed."""
        end = self.model.n_layers if stop is None else stop
        marks: dict[int, Tensor | None] = dict.fromkeys(m for m in sorted(self._marks) if chunk.layer < m < end)
        result = run(
            self.model,
            chunk.batch,
            start=chunk.layer,
            residual=chunk.residual,
            stop=stop,
            marks=marks,
            keys_values=keys_values,
            unembed=stop is not None or not multiplies_in_blocks(self.model),
        )
        if stop in self._marks:
            marks[stop] = result
        key = key_of(self.model, chunk.batch)
        for layer, stream in marks.items():
            if stream is not None:
                self._kept.keep(key, layer, stream, self.memory // 2)
        return result

    def _look_up(self, chunk: _Chunk, layer: int) -> None:
        """Go on from what an earlier run kept, where that is nearer to a layer."""
        if chunk.layer < layer and (kept := self._kept.nearest(key_of(self.model, chunk.batch), layer, chunk.layer)):
            chunk.layer, chunk.residual = kept
            chunk.record = chunk.next_residual = None


def _recorded(output: Tensor, copies: int) -> Compute:
    return lambda x, original: output.repeat(copies, 1) if copies > 1 else output
