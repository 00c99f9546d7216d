"""Edits at chosen positions, on one path, and patched from another prompt: against a plain transformers model."""

import pytest
import torch
from families import FAMILIES, build

import laser_interp as li
from laser_interp.edits.controls import CONTROLS
from laser_interp.facts.files import facts_from_rows
from laser_interp.models.forward import activations, logits_at
from laser_interp.models.hooks import rewriting
from laser_interp.models.tokens import tokens_of_part


@pytest.fixture(scope="module")
def double():
    return li.load_model("organism", device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def few(facts):
    test = facts.split("test")
    return test.keep(test.facts[:12])


def final_residual(model, prompt, edit=None):
    """What enters the final norm, looked at by a hook of its own."""
    from contextlib import nullcontext

    seen = []
    row = model.encode(prompt)
    with (
        edit.on(model) if edit is not None else nullcontext(),
        model.bridge.hooks(fwd_hooks=[("ln_final.hook_in", lambda x, hook: seen.append(x.detach().clone()))]),
    ):
        list(logits_at(model, [row], [(0, len(row) - 1)]))
    return seen[-1][0]


@pytest.mark.parametrize("site", ["0.o", "1.out", "2.o", "3.out"])
def test_direct_and_indirect_add_up_to_the_total(double, few, site):
    for made in (lambda: li.laser(double, site, rank=3), lambda: li.laser(double, site, rank=3).discarded()):
        edit = made()
        prompt = few.facts[0].prompt
        base = final_residual(double, prompt)
        moved = {
            path: final_residual(double, prompt, edit.via(path)) - base for path in ("network", "direct", "indirect")
        }
        assert torch.allclose(moved["direct"] + moved["indirect"], moved["network"], atol=1e-5)
        assert moved["direct"].norm() > 1e-3
        if site != "3.out":  # the last matrix has nothing after it
            assert moved["indirect"].norm() > 1e-3


def test_the_direct_path_is_the_matrix_s_own_term(double, few):
    """Computed by hand: the site's input times the removed weight, added before the final norm."""
    edit = li.laser(double, "1.out", rank=2)
    (part,) = edit.parts.values()
    prompt = few.facts[3].prompt
    row = double.encode(prompt)
    ((_, _, of),) = activations(double, [row], None, [(1, "out")])
    x, _ = of((1, "out"))
    removed = x[0] @ (part.weight - part.spectrum.matrix())
    expected = final_residual(double, prompt) + removed
    assert torch.allclose(final_residual(double, prompt, edit.via("direct")), expected, atol=1e-9)


def test_paths_that_do_not_exist_are_refused(organism, few):
    with pytest.raises(ValueError, match=r"3\.in has no direct path: 'in' does not write into the residual stream"):
        li.score(organism, few, {"x": li.laser(organism, "3.in", rank=1).via("direct")}, progress=False)
    with pytest.raises(ValueError, match="path is 'short': expected one of network, direct, indirect"):
        li.laser(organism, "3.out", rank=1).via("short")


NORMS_AFTER = ("gemma2", "gemma3", "olmo2", "bert", "openai-gpt")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "gptj", "llama", "olmo", "smollm3", *NORMS_AFTER])
def test_which_families_have_a_direct_path(family):
    model = build(family)
    edit = li.laser(model, "1.out", rank=2).via("direct")
    if family in NORMS_AFTER:
        with pytest.raises(ValueError, match="has norms between its matrices and the residual stream, or none"):
            edit.check(model)
    else:
        edit.check(model)


def test_positions(double, few):
    """Editing all positions of the prompt one set after the other: only the chosen ones change."""
    edit = li.laser(double, "1.in", rank=1)
    fact = few.facts[0]
    ids = double.encode(fact.prompt)
    subject = tokens_of_part(double, fact.prompt, fact.subject)
    assert double.tokenizer.decode([ids[i] for i in subject]) == fact.subject
    (part,) = edit.parts.values()
    for where, places in (("last", [len(ids) - 1]), ("subject_last", subject[-1:]), ("subject", subject)):

        def by_hand(x, y, places=places):
            out = y.clone()
            out[:, places] = x[:, places] @ part.weight + double.bias(1, "in")
            return out

        with rewriting(double, {(1, "in"): by_hand}):
            expected = double.next_token_logprobs(fact.prompt)
        found = double.next_token_logprobs(fact.prompt, edit=edit.at(double, where, few))
        assert torch.allclose(found, expected, atol=1e-10), where
        assert not torch.allclose(found, double.next_token_logprobs(fact.prompt), atol=1e-4), where


def test_facts_may_be_named_by_their_file(double, few, tmp_path):
    edit, path = li.laser(double, "1.in", rank=1), few.save(tmp_path / "facts.jsonl")
    for source in (path, str(path)):
        assert edit.at(double, "last", source).placement.positions == edit.at(double, "last", few).placement.positions
    assert len(edit.at(double, "last", "Mira Tolen was").placement.positions) == 1


def test_positions_do_not_depend_on_padding_or_batches(double, few):
    edit = li.laser(double, "1.in", rank=1).at(double, "subject", few)
    alone = torch.cat([double.next_token_logprobs(f.prompt, edit=edit) for f in few])
    assert torch.allclose(double.next_token_logprobs([f.prompt for f in few], edit=edit), alone, atol=1e-10)
    single = li.load_model("organism", device="cpu")
    edit = li.laser(single, "1.in", rank=1).at(single, "subject", few)
    rows = [single.encode(f.prompt) for f in few]
    reads = [(i, len(row) - 1) for i, row in enumerate(rows)]
    with edit.on(single):
        for padding in ("left", "right"):
            for indices, logits in logits_at(single, rows, reads, padding=padding):
                assert torch.allclose(logits.log_softmax(-1).double(), alone[indices], atol=1e-4), padding


def test_placed_edits_in_score_sweep_and_generate(organism, few):
    edit = li.laser(organism, "3.in", rank=1)
    placed = edit.at(organism, "last", few)
    prompts = [prompt for fact in few for prompt in fact.prompts]
    both_layers = edit + li.laser(organism, "1.out", rank=2)
    patched = both_layers.patched(organism, dict(zip(prompts, prompts[1:] + prompts[:1], strict=True)))
    runs = {"base": None, "laser": edit, "last": placed, "patched": patched}
    runs["direct"] = li.laser(organism, "2.out", rank=9).via("direct")
    scores = li.score(organism, few, runs, progress=False)
    reference = li.score(organism, few, runs, engine="reference", progress=False)
    assert (scores["logprob"] - reference["logprob"]).abs().max() < 1e-5
    assert set(scores["kind"]) == {"base", "laser", "laser@last", "laser-patched@last", "laser/direct"}
    # in the last layer, only the last position's MLP is read
    by = scores.groupby("edit")["logprob"].mean()
    assert by["last"] == pytest.approx(by["laser"], abs=1e-5)
    prompt = few.facts[0].prompt
    assert organism.generate(prompt, 1, edit=placed) == organism.generate(prompt, 1, edit=edit)
    organism.generate(prompt, 5, edit=placed)
    both = few.with_split(0.5, seed=0)
    found = li.search(organism, both, matrices="in", layers=[1], rhos=[0.05], at="last", test="all", progress=False)
    cell = found.cells[found.cells["kind"] != "base"].iloc[0]
    again = li.score(
        organism,
        both.split("validation"),
        {"x": li.laser(organism, "1.in", 0.05).at(organism, "last", both)},
        progress=False,
    )
    assert -again["logprob"].mean() == pytest.approx(cell["loss"], abs=1e-5)
    with pytest.raises(ValueError, match="has no direct path"):
        li.search(organism, both, matrices="in", rhos=[0.05], path="direct", progress=False)


def test_controls_act_where_their_edit_acts(organism, few):
    placed = li.laser(organism, "2.out", rank=3).at(organism, "last", few)
    direct = li.laser(organism, "2.out", rank=3).via("direct")
    for name, control in CONTROLS.items():
        if name != "zeroed":
            assert control.make(organism, placed, 0).placement is placed.placement, name
            assert control.make(organism, direct, 0).path == "direct", name
    patched = li.laser(organism, "2.out", rank=3).patched(organism, dict.fromkeys(few.facts[0].prompts, "Mira Tolen"))
    for make in (
        patched.discarded,
        lambda: patched.inject(0.5),
        lambda: CONTROLS["bottom_kept"].make(organism, patched, 0),
    ):
        with pytest.raises(ValueError, match="make other edits of it before it is patched"):
            make()
    pruned = li.controls.pruned(organism, "3.in", 0.5)
    with pytest.raises(ValueError, match="adds a matrix to the weight"):
        li.controls.same_rank_in_layer(organism, pruned)


def test_patching(double, few):
    edit = li.laser(double, "2.out", rank=4)
    target, source = few.facts[0].prompt, few.facts[6].prompt
    same = edit.patched(double, {target: target})
    assert torch.allclose(double.next_token_logprobs(target, edit=same), double.next_token_logprobs(target), atol=1e-10)
    pruned = li.controls.pruned(double, "2.out", 0.5).patched(double, {target: target})
    assert torch.allclose(
        double.next_token_logprobs(target, edit=pruned), double.next_token_logprobs(target), atol=1e-9
    )
    (part,) = edit.parts.values()
    rows = [double.encode(target), double.encode(source)]
    inputs = {}
    for (i,), _, of in (step for row in rows for step in activations(double, [row], None, [(2, "out")])):
        inputs[len(inputs)] = of((2, "out"))[0][i, -1]
    tail = part.spectrum.matrix() - part.weight

    def by_hand(x, y):
        out = y.clone()
        out[:, -1] = inputs[0] @ part.weight + inputs[1] @ tail + double.bias(2, "out")
        return out

    with rewriting(double, {(2, "out"): by_hand}):
        expected = double.next_token_logprobs(target)
    found = double.next_token_logprobs(target, edit=edit.patched(double, {target: source}))
    assert torch.allclose(found, expected, atol=1e-10)
    scores = li.score(
        double, few.keep(few.facts[:1]), {"x": edit.patched(double, dict.fromkeys(few.facts[0].prompts, source))}
    )
    assert scores["kind"].unique().tolist() == ["laser-patched@last"]
    with pytest.raises(ValueError, match="expected 'last' or 'subject_last'"):
        edit.patched(double, {target: source}, where="subject")


def test_patching_of_prompts_that_begin_alike(double, few):
    """Up to the subject's last token they are one prompt: they are patched alike, and from one source alone."""
    subject, other = few.facts[0].subject, few.facts[6].subject
    alike = [f"{subject} was taught by", f"{subject} was born in"]
    source, longer = f"{other} was taught by", f"{other} was born in"
    subjects = dict.fromkeys(alike, subject) | dict.fromkeys([source, longer], other)
    edit = li.laser(double, "1.out", rank=4)
    both = edit.patched(double, {alike[0]: source, alike[1]: longer}, where="subject_last", subjects=subjects)
    for prompt in alike:
        alone = edit.patched(double, {prompt: source}, where="subject_last", subjects=subjects)
        expected, found = (double.next_token_logprobs(prompt, edit=one) for one in (alone, both))
        assert torch.allclose(found, expected, atol=1e-12)
    with pytest.raises(ValueError, match="two prompts begin alike and have other sources"):
        edit.patched(double, {alike[0]: source, alike[1]: alike[1]}, where="subject_last", subjects=subjects)


def test_masked_models_are_not_patched():
    model = build("bert")
    with pytest.raises(ValueError, match="only causal models are patched"):
        li.laser(model, "1.out", rank=2).patched(model, {"1 2 [MASK]": "3 4 [MASK]"})


def test_placed_edits_refuse(organism, few, tmp_path):
    edit = li.laser(organism, "3.in", rank=1)
    placed = edit.at(organism, "last", few)
    with pytest.raises(ValueError, match="this edit has no positions for the prompt"):
        organism.next_token_logprobs("The old ship", edit=placed)
    with pytest.raises(ValueError, match="where is 'first'"):
        edit.at(organism, "first", few)
    with pytest.raises(ValueError, match="does not hold the subject 'Ada'"):
        edit.at(organism, "subject", {"The old ship": "Ada"})
    with pytest.raises(ValueError, match="cannot be written as a changed weight"):
        li.export_dense(organism, placed, tmp_path / "x")
    with pytest.raises(ValueError, match="is not nested with another"), edit.on(organism), placed.on(organism):
        pass
    with pytest.raises(ValueError, match="act on other paths or positions"):
        placed + li.laser(organism, "2.in", rank=1)
    with placed.on(organism), pytest.raises(ValueError, match="works in li.score, li.search"):
        organism.bridge(torch.tensor([[1, 2, 3]]), return_type="logits")


def test_a_masked_model_at_its_subject():
    model = build("bert")
    words = ["waa", "wab", "wac"]
    prompt, mask = f"{words[0]} {words[1]}", model.tokenizer.mask_token
    facts = facts_from_rows(
        [{"fact_id": "1", "subject": words[1], "relation": "r", "object": words[2], "prompt": f"{prompt} {mask} ."}]
    )
    edit = li.laser(model, "0.in", rank=1)
    runs = {"base": None, **{where: edit.at(model, where, facts) for where in ("last", "subject")}}
    scores = li.score(model, facts, runs, candidates=False, progress=False).set_index("edit")["logprob"]
    assert scores.nunique() == 3


def test_families_are_as_the_placement_expects():
    assert {"gpt2", "gptj", "llama", "gemma2", "bert", "openai-gpt"} <= set(FAMILIES)
