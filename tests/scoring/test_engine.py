"""The engine against whole forwards with hooks on, for every family; and that it computes less."""

import copy
import itertools
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import FAMILIES, LAYERS, PROMPTS, VOCAB, D, by_engine, edited, loaded, prefix

import laser_interp as li
from laser_interp.edits.placement import Placement
from laser_interp.models import partial_runs, unembedding
from laser_interp.models.bfloat16 import in_bfloat16
from laser_interp.models.forward import logits_at
from laser_interp.models.hooks import count_hooks
from laser_interp.models.residual_stream import is_parallel
from laser_interp.scoring.engine import Engine
from laser_interp.scoring.kept_streams import KeptStreams, kept_streams
from laser_interp.scoring.memory import parse_memory
from laser_interp.scoring.side_by_side import group_edits, runs_side_by_side
from laser_interp.selection.cost_estimate import operations

# Beginnings that are shared, a prompt twice, a prompt that begins another one, and reads inside a prompt.
ROWS = [*PROMPTS, [*PROMPTS[0][:5], 40, 41, 42], PROMPTS[0], [*PROMPTS[1], 9], PROMPTS[0][:3]]
READS = [(i, len(row) - 1) for i, row in enumerate(ROWS)] + [(0, 2), (4, 3)]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
FLOAT32_ATTENTION = ("gptj", "gpt_neo")  # transformers multiplies their queries and keys in float32 in every dtype


KINDS = {
    "laser": lambda m, s: li.laser(m, s, rank=3),
    "discarded": lambda m, s: li.laser(m, s, rank=3).discarded(),
    "injected": lambda m, s: li.laser(m, s, rank=3).inject(-0.5),
    "most kept": lambda m, s: li.laser(m, s, rho=0.8),
    "random": lambda m, s: li.controls.random_subspace(m, li.laser(m, s, rank=3), seed=0),
    "zeroed": lambda m, s: li.zeroed(m, s),
}


PAIRS = list(itertools.combinations(KINDS, 2))


def kinds_at(number, family, whole):
    """The kinds of edit that a family's site of this number has side by side: all of them, or two by turns.

    By turns every family has every pair of kinds at one site or another, and every site every kind in one family or
    another.
    """
    if whole:
        return list(KINDS)
    alike = [name for name in FAMILIES if FAMILIES[name][3] == FAMILIES[family][3]]  # their sites have one order
    return PAIRS[(number + 2 * alike.index(family)) % len(PAIRS)]


def edits_of(model, family, whole):
    yield None
    sites = [li.Site(*site) for site in itertools.product(range(LAYERS), model.matrices)]
    for number, site in enumerate(sites):
        yield from (KINDS[kind](model, site) for kind in kinds_at(number, family, whole))
    for together in ("1.q 1.o 2.in", "0.in 0.out", "0.v 0.out", "2.k 2.out", "1.out 2.q 2.v"):
        for rank in (3, 7):
            parts = [li.laser(model, site, rank=rank) for site in together.split()]
            joined = parts[0]
            for part in parts[1:]:
                joined = joined + part
            yield joined
            yield replace(joined, placement=PLACEMENTS[rank == 3])
    for number, site in enumerate(sites):
        yield replace(KINDS[kinds_at(number, family, whole)[0]](model, site), placement=PLACEMENTS[number % 2])


# A row that begins another one has other positions; one position is read, and others are not
PLACEMENTS = (
    Placement("last", {tuple(row): (len(row) - 1,) for row in ROWS}),
    Placement("inside", {tuple(row): (1, len(row) // 2 + 1) for row in ROWS}),
)


def by_hooks(model, edit):
    out = torch.empty(len(READS), model.d_vocab, dtype=torch.promote_types(model.dtype, torch.float32))
    with edit.on(model) if edit is not None else nullcontext():
        for reads, logits in logits_at(model, ROWS, READS):
            out[reads] = logits.log_softmax(-1)
    return out


def test_turns_meet_every_pair_of_kinds():
    met = [
        (family, site, kinds_at(number, family, False))
        for family, (*_, matrices, _) in FAMILIES.items()
        for number, site in enumerate(itertools.product(range(LAYERS), matrices))
    ]
    for family in FAMILIES:
        assert {pair for one, _, pair in met if one == family} == set(PAIRS)
    for site in {site for _, site, _ in met}:
        assert {kind for _, one, pair in met if one == site for kind in pair} == set(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["turns", "whole"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "fp64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(monkeypatch, family, dtype, whole):
    monkeypatch.setattr(unembedding, "BLOCK", 2 * D * VOCAB // 5)  # the vocabulary in three blocks
    _, model = loaded(family, dtype)
    edits = [edit for edit in edits_of(model, family, whole) if runs_side_by_side(model, edit)]
    assert any(edit is not None and edit.placement is not None for edit in edits) != model.masked
    engine = Engine(model, ROWS, READS, memory=1 << 30)
    found = by_engine(engine, edits)
    assert not found.isnan().any()
    tolerance = TOLERANCE[torch.float32 if family in FLOAT32_ATTENTION else dtype]
    for edit, logprobs in zip(edits, found, strict=True):
        assert float((logprobs - by_hooks(model, edit)).abs().max()) < tolerance, edit
    assert count_hooks(model) == 0
    assert not any("forward" in module.__dict__ for module in model.bridge.modules())


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama_gqa", "bert"])
def test_against_edited_weights(family):
    """Without the hooks in between: the engine, and a plain transformers model with other weights."""
    hf, model = loaded(family, torch.float32)
    sites = [li.Site(layer, m) for layer in range(LAYERS) for m in model.matrices]
    engine = Engine(model, PROMPTS, [(i, len(row) - 1) for i, row in enumerate(PROMPTS)], memory=1 << 30)
    found = by_engine(engine, [li.laser(model, site, rank=3) for site in sites])
    for site, one in zip(sites, found, strict=True):
        plain = edited(family, copy.deepcopy(hf), {(site.layer, site.matrix): lambda r: prefix(r, 3)})
        for row, ours in zip(PROMPTS, one, strict=True):
            with torch.no_grad():
                expected = plain(torch.tensor([row])).logits[0, -1].log_softmax(-1)
            assert float((ours - expected).abs().max()) < 2e-5, site


@pytest.mark.slow
def test_blocks_that_are_parallel_are_found():
    parallel = {family for family in FAMILIES if is_parallel(loaded(family, torch.float32)[1], 1)}
    assert parallel == {"gptj", "gpt_neox", "phi"}


def test_a_sequential_neox_is_not_taken_for_a_parallel_one():
    import transformers
    from families import masked_tokens

    config = transformers.GPTNeoXConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        use_parallel_residual=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = li.load_model((transformers.GPTNeoXForCausalLM(config), masked_tokens("gpt_neox")), device="cpu")
    assert not is_parallel(model, 0)
    edits = [li.laser(model, f"0.{m}", rank=k) for m in model.matrices for k in (2, 5)]
    for edit, one in zip(edits, by_engine(Engine(model, ROWS, READS, memory=1 << 30), edits), strict=True):
        assert float((one - by_hooks(model, edit)).abs().max()) < 1e-5


def counted(model, work):
    """Rows that each linear map of the model itself computes while `work` runs, by (layer, matrix)."""
    rows = {(layer, m): 0 for layer in range(model.n_layers) for m in model.matrices}
    originals = {at: model.linear(*at) for at in rows}
    for at, module in originals.items():
        whole = type(module).forward

        def forward(x, at=at, module=module, whole=whole):
            rows[at] += x.numel() // x.shape[-1]
            return whole(module, x)

        module.__dict__["forward"] = forward
    try:
        work()
    finally:
        for module in originals.values():
            del module.__dict__["forward"]
    return rows


def test_only_what_changes_is_computed(monkeypatch):
    _, model = loaded("gpt2", torch.float32)
    is_parallel(model, 1)
    by_engine(
        Engine(model, [[5, 6]], [(0, 1)], memory=1 << 30), [li.laser(model, "1.in", rank=1)]
    )  # what is asked once
    rows = [[5, 6, 7, 8], [9, 10, 11, 12], [5, 6, 7, 8], [5, 6, 13, 14]]
    reads = [(i, 3) for i in range(4)]
    unique = 4 + 4 + 2  # tokens with their own beginnings: the third row is the first, the fourth shares two
    edits = [li.laser(model, "1.in", rank=k) for k in (2, 3, 4)]
    found = counted(model, lambda: by_engine(Engine(model, rows, reads, memory=1 << 30), edits))
    assert all(found[0, m] == unique for m in model.matrices)  # once, to reach layer 1
    assert [found[1, m] for m in "qkvo"] == [unique] * 4  # once, to be used again
    assert found[1, "in"] == unique  # the original, recorded; the edited one has no original
    assert found[1, "out"] == unique * (1 + 3)
    assert [found[2, m] for m in "kv"] == [unique * 3] * 2
    assert [found[2, m] for m in ("q", "o", "in", "out")] == [3 * 3] * 4  # three different places are read


def test_an_edit_at_the_last_position_computes_little_more_than_that():
    _, model = loaded("gpt2", torch.float32)
    rows = [[5, 6, 7, 8], [9, 10, 11, 12], [5, 6, 13, 14]]
    reads = [(i, 3) for i in range(3)]
    last = Placement("last", {tuple(row): (3,) for row in rows})
    edits = [replace(li.laser(model, site, rank=k), placement=last) for site in ("0.in", "1.v") for k in (2, 3)]
    by_engine(Engine(model, rows[:1], reads[:1], memory=1 << 30), edits)  # what is asked once
    kept_streams(model).forget()
    unique = 4 + 4 + 2  # tokens with their own beginnings, once as trained
    found = counted(model, lambda: by_engine(Engine(model, rows, reads, memory=1 << 30), edits))
    assert [found[0, m] for m in "qkvo"] == [unique + 2 * 3] * 4  # and the last of each row for both edits of layer 0
    assert [found[1, m] for m in "qkvo"] == [unique + 4 * 3] * 4
    assert [found[2, m] for m in "kv"] == [unique + 4 * 3] * 2


def test_keys_and_values_that_do_not_fit_are_kept_of_fewer_rows():
    _, model = loaded("gpt2", torch.float32)
    edits = [replace(li.laser(model, "1.in", rank=2), placement=PLACEMENTS[0])]
    tokens, layer = sum(map(len, ROWS)), 2 * D * 4
    engine = Engine(model, ROWS, READS, memory=1 << 30)
    whole = by_engine(engine, edits)
    assert len(engine._chunks) == 1
    engine.memory = 2 * tokens * layer  # a third of what all layers take fits into its half
    assert torch.allclose(by_engine(engine, edits), whole, atol=1e-6)
    assert len(engine._chunks) > 2


def test_an_edit_at_some_positions_refuses_other_prompts():
    _, model = loaded("gpt2", torch.float32)
    edit = replace(li.laser(model, "1.in", rank=2), placement=Placement("last", {tuple(ROWS[0]): (1,)}))
    with pytest.raises(ValueError, match="this edit has no positions for the prompt"):
        by_engine(Engine(model, ROWS, READS, memory=1 << 30), [edit])


def test_a_run_goes_on_from_what_runs_before_kept():
    _, model = loaded("gpt2", torch.float32)
    two = lambda site: [li.laser(model, site, rank=k) for k in (2, 3)]  # noqa: E731
    kept_streams(model).forget()
    by_engine(Engine(model, ROWS, READS, memory=1 << 30), two("1.in"))
    another = Engine(model, ROWS, READS, memory=1 << 30)  # as the next call of li.score has
    found = counted(model, lambda: by_engine(another, two("2.in")))
    assert all(found[0, m] == 0 for m in model.matrices)
    assert any(found[1, m] > 0 for m in model.matrices)
    found = counted(model, lambda: by_engine(another, two("2.in")))  # from layer 2
    assert all(found[layer, m] == 0 for layer in (0, 1) for m in model.matrices)
    with in_bfloat16(model):  # nothing passes from one precision to another
        found = counted(model, lambda: by_engine(another, two("2.in")))
    assert all(found[0, m] > 0 for m in model.matrices)
    others = Engine(model, [row[::-1] for row in ROWS], READS, memory=1 << 30)
    found = counted(model, lambda: by_engine(others, two("2.in")))
    assert all(found[0, m] > 0 for m in model.matrices)


def test_a_run_from_a_middle_layer_goes_on_from_a_stream_kept_on_the_way():
    _, model = loaded("gpt2", torch.float32)
    two = lambda site: [li.laser(model, site, rank=k) for k in (2, 3)]  # noqa: E731
    last = f"{LAYERS - 1}.in"
    for first in (two(last), [None]):  # an edit of the last layer, and the model as trained alone
        kept_streams(model).forget()
        by_engine(Engine(model, ROWS, READS, memory=1 << 30), first)
        engine = Engine(model, ROWS, READS, memory=1 << 30)
        edits = two("1.in")
        found = counted(model, lambda engine=engine, edits=edits: by_engine(engine, edits))
        assert all(found[0, m] == 0 for m in model.matrices)
        kept = by_engine(engine, edits)
        kept_streams(model).forget()
        assert torch.equal(kept, by_engine(engine, edits))


def test_what_is_kept_goes_with_a_changed_weight_and_without_room():
    _, model = loaded("gpt2", torch.float32)
    edits = [li.laser(model, "2.in", rank=k) for k in (2, 3)]
    engine = Engine(model, ROWS, READS, memory=1 << 30)
    before = by_engine(engine, edits)
    weight = model.weight(0, "out")
    weight *= 2
    changed = by_engine(engine, edits)
    kept_streams(model).forget()
    assert torch.equal(changed, by_engine(engine, edits))
    assert not torch.allclose(changed, before, atol=1e-3)
    weight /= 2
    streams = KeptStreams()
    for layer in range(4):
        streams.keep(("a", False), layer, torch.zeros(100), most_bytes=1000)
    assert streams.nearest(("a", False), 9, 0)[0] == 3
    assert streams.nearest(("a", False), 1, -1) is None  # 400 bytes each: two have room
    streams.keep(("b", False), 0, torch.zeros(1000), most_bytes=1000)
    assert streams.nearest(("b", False), 9, -1) is None


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_out_of_memory_halves_and_goes_on(monkeypatch, most):
    """Whatever is larger than `most` copies of rows does not fit: first fewer edits at once, then fewer rows."""
    _, model = loaded("llama", torch.float32)
    edits = [None, *(li.laser(model, "1.in", rank=k) for k in (2, 3, 4, 5)), li.laser(model, "2.q", rank=2)]
    expected = by_engine(Engine(model, ROWS, READS, memory=1 << 30), edits)
    original = partial_runs.run
    refused = []

    def run(model, batch, *, copies=1, **options):
        if copies * batch.shape[0] > most:
            refused.append(copies)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(model, batch, copies=copies, **options)

    monkeypatch.setattr("laser_interp.scoring.engine.run", run)
    found = by_engine(Engine(model, ROWS, READS, memory=1 << 30), edits)
    assert refused
    assert float((found - expected).abs().max()) < 1e-5


def test_what_does_not_fit_at_all_is_told(monkeypatch):
    _, model = loaded("llama", torch.float32)

    def run(model, batch, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    edit = li.laser(model, "1.in", rank=2)
    monkeypatch.setattr("laser_interp.scoring.engine.run", run)
    with pytest.raises(MemoryError, match="one prompt of 3 tokens under one edit does not fit"):
        by_engine(Engine(model, ROWS, READS, memory=1 << 30), [edit])
    monkeypatch.setattr(
        "laser_interp.scoring.engine.run", lambda model, batch, **_: (_ for _ in ()).throw(RuntimeError("a bug"))
    )
    with pytest.raises(RuntimeError, match="a bug"):
        by_engine(Engine(model, ROWS, READS, memory=1 << 30), [edit])


def test_batches_obey_the_budget(monkeypatch):
    _, model = loaded("gpt2", torch.float32)
    rows = [[int(i)] * 5 + [j] for i in range(20) for j in range(10)]
    reads = [(i, 5) for i in range(200)]
    edits = [li.laser(model, "1.in", rank=k) for k in range(1, 20)]
    original, seen = partial_runs.run, []

    def run(model, batch, *, copies=1, **options):
        seen.append(copies * batch.ids.numel())
        return original(model, batch, copies=copies, **options)

    monkeypatch.setattr("laser_interp.scoring.engine.run", run)
    sizes = {}
    for memory in (1_000_000, 4_000_000, 1 << 30):
        seen.clear()
        engine = Engine(model, rows, reads, memory=memory)
        by_engine(engine, edits)
        each = engine._bytes(1, 6, 1) / 6
        assert max(seen) * each <= memory
        sizes[memory] = max(seen)
    assert sizes[1_000_000] < sizes[4_000_000] < sizes[1 << 30]


def test_memory_is_read_as_people_write_it(organism):
    assert parse_memory("2GiB", organism) == parse_memory(None, organism) == 2**31
    assert parse_memory("1.5 MB", organism) == 1_500_000
    for wrong in ("2 apples", "GiB", "-3GB"):
        with pytest.raises(ValueError, match="expected a number of bytes"):
            parse_memory(wrong, organism)
    with pytest.raises(ValueError, match="at least a megabyte"):
        parse_memory(1000, organism)


def test_hooks_of_others_are_obeyed(organism, facts, laser):
    """Foreign hooks act on what is scored; inside an edit nothing is scored, because "base" would not be the base."""
    some = facts[:5]

    def halved(x, hook):
        return 0.5 * x

    with organism.bridge.hooks(fwd_hooks=[("blocks.2.hook_out", halved)]):
        hooked = li.score(organism, some, {"base": None, "x": laser}, progress=False)
        slow = li.score(organism, some, {"base": None, "x": laser}, engine="reference", progress=False)
    alone = li.score(organism, some, {"base": None, "x": laser}, progress=False)
    assert hooked["logprob"].to_numpy() == pytest.approx(slow["logprob"].to_numpy(), abs=1e-5)
    assert not np.allclose(hooked["logprob"], alone["logprob"])
    with laser.on(organism), pytest.raises(ValueError, match="scoring needs the model as trained"):
        li.score(organism, some, {"base": None})
    with laser.on(organism), pytest.raises(ValueError, match="an edit is on"):
        next(Engine(organism, [[1, 2]], [(0, 1)], memory=1 << 30).run([None]))
    with pytest.raises(ValueError, match="engine is 'quick': expected one of fast, reference"):
        li.score(organism, some, {"x": None}, engine="quick")


def test_operations_by_hand():
    _, model = loaded("gpt2", torch.float32)  # 3 layers, d 32, inner 48, vocabulary 96
    d, inner, v, n = 32, 48, 96, 5
    attention, last = 2 * n * n * d, 4 * n * d
    full = 2 * n * (4 * d * d + 2 * d * inner) + attention
    end = 2 * (n * 2 * d * d + 2 * d * d + 2 * d * inner) + last + 2 * d * v
    site = 2 * n * 3 * inner + 2 * n * 3 * d
    assert operations(model, li.Site(0, "in"), [3], [n]) == full + end + 2 * n * inner * d + site
    assert operations(model, li.Site(0, "in"), [3], [n, n]) == 2 * operations(model, li.Site(0, "in"), [3], [n])
    two = operations(model, li.Site(1, "q"), [3, 5], [n])
    rest = 2 * n * d * d + attention + 2 * n * 2 * d * inner + end
    assert two == 2 * rest + 2 * n * (8 * d + 5 * d)
    at_end = operations(model, li.Site(2, "out"), [3], [n])
    assert at_end == 2 * d * v + 2 * (3 * d + 3 * inner)
    assert at_end < operations(model, li.Site(1, "out"), [3], [n]) < operations(model, li.Site(0, "out"), [3], [n])


def test_a_run_that_is_left_half_way_leaves_nothing_behind():
    _, model = loaded("llama", torch.float32)
    edits = [li.laser(model, "1.in", rank=k) for k in (2, 3)] + [li.laser(model, "2.out", rank=3)]
    engine = Engine(model, ROWS, READS, memory=1 << 30)
    whole = by_engine(engine, edits)
    running = engine.run(edits)
    next(running)
    assert any(chunk.residual is not None for chunk in engine._chunks)
    running.close()
    for chunk in engine._chunks:
        assert (chunk.layer, chunk.residual, chunk.record, chunk.next_residual) == (0, None, None, None)
    assert torch.equal(by_engine(engine, edits), whole)


def test_the_weights_of_a_run_that_was_left_are_not_used_again():
    _, trained = loaded("llama", torch.float32)
    model = li.load_model((copy.deepcopy(loaded("llama", torch.float32)[0]), trained.tokenizer), device="cpu")
    engine = Engine(model, ROWS, READS, memory=1 << 30)
    edits = [li.laser(model, "2.in", rank=k) for k in (2, 3)]
    running = engine.run(edits)
    next(running)
    running.close()
    with torch.no_grad():
        model.linear(0, "out").weight.mul_(1.5)
    new = Engine(model, ROWS, READS, memory=1 << 30)
    assert torch.equal(by_engine(engine, edits), by_engine(new, edits))


def test_halves_own_their_memory_and_keep_no_record():
    _, model = loaded("llama", torch.float32)
    engine = Engine(model, ROWS, READS, memory=1 << 30)
    (chunk,) = engine._chunks
    engine._reach(chunk, 1, record=True)
    assert chunk.record is not None
    passes = engine._passes(chunk, group_edits(model, [li.laser(model, "1.in", rank=k) for k in (2, 3)]))
    ((same, halved),) = engine._smaller(chunk, passes, MemoryError())  # first the edits
    assert same is chunk
    assert (chunk.record, chunk.next_residual) == (None, None)
    assert [len(part.which) for part in halved] == [1, 1]
    engine._reach(chunk, 1, record=True)
    for half, _ in engine._smaller(chunk, halved, MemoryError()):  # then the rows
        assert half.residual.untyped_storage().nbytes() == half.residual.nbytes
        assert half.record is None
    assert chunk.record is None


def test_a_chunk_that_is_beyond_the_wanted_layer_begins_anew():
    _, model = loaded("llama", torch.float32)
    kept_streams(model).forget()
    engine = Engine(model, ROWS, READS, memory=1 << 30)
    engine._kept = KeptStreams()
    engine._marks = set()
    (chunk,) = engine._chunks
    engine._reach(chunk, 1, record=False)
    first = chunk.residual.clone()
    engine._reach(chunk, 2, record=False)
    assert not torch.equal(chunk.residual, first)
    engine._kept = KeptStreams()
    engine._reach(chunk, 1, record=False)
    assert chunk.layer == 1
    assert torch.equal(chunk.residual, first)
