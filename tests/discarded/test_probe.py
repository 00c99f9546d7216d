"""One prompt looked at from every side: each number is that of the function that gives it for whole sets."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from families import FAMILIES, build

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.facts.files import facts_from_rows
from laser_interp.models.logit_lens import logprobs_along_layers
from laser_interp.models.tokens import questions
from laser_interp.scoring.scorer import Scorer

PROMPT, ANSWER, RIVALS = "Once Mira Tolen was born in", "Varwick", ("Brimmere", "Varholt")
DISCARDED = "discarded by laser"


@pytest.fixture(scope="module")
def probed(organism):
    return li.probe(organism, PROMPT, li.laser(organism, "3.in", rho=0.05), ANSWER, RIVALS, k=4)


@pytest.fixture(scope="module")
def one_fact():
    row = {"subject": "Mira Tolen", "object": ANSWER, "prompt": PROMPT, "candidates": [ANSWER, *RIVALS]}
    return facts_from_rows([{"fact_id": "1", "relation": "r", **row}])


def test_it_says_what_the_scores_of_one_fact_say(organism, laser, probed, one_fact):
    runs = {"base": None, "laser": laser, DISCARDED: laser.discarded()}
    scorer = Scorer(organism, one_fact, top_k=4)
    scores = pd.concat([frame for _, frame in scorer.run(runs)], ignore_index=True)
    own = probed.summary[probed.summary["object"] == ANSWER].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, scores[list(own)], rtol=1e-6)
    for label, words, probabilities in scores[["edit", "top_answers", "top_probs"]].itertuples(index=False):
        rows = probed.answers[probed.answers["edit"] == label]
        assert [word.strip() for word in rows["word"]] == words
        assert rows["probability"].to_numpy() == pytest.approx(probabilities, abs=1e-6)
    for label in ("laser", DISCARDED):
        expected = li.decompose(scores, edit=label).table
        rows = probed.parts[probed.parts["edit"] == label]
        assert rows["part"].tolist() == ["generic", "kind", "rivals", "rest", "whole"] == expected["part"].tolist()
        assert rows["change"].to_numpy() == pytest.approx(expected["change"], abs=1e-5)
        changes = rows.set_index("part")["change"]
        before, after = (own.set_index("edit")["logprob"][one] for one in ("base", label))
        assert changes.drop("whole").sum() == pytest.approx(changes["whole"]) == pytest.approx(after - before)


def test_each_rival_has_its_own_log_probability(organism, laser, probed):
    for label, edit in {"base": None, "laser": laser, DISCARDED: laser.discarded()}.items():
        logprobs = organism.next_token_logprobs(PROMPT, edit)[0]
        rows = probed.summary[probed.summary["edit"] == label]
        assert rows["object"].tolist() == [ANSWER, *RIVALS]
        expected = [float(logprobs[organism.to_single_token(f" {word}")]) for word in rows["object"]]
        assert rows["logprob"].to_numpy() == pytest.approx(expected, abs=1e-5)


def test_along_the_layers_as_plain_transformers_computes_it(organism, laser, probed, plain):
    """Weights are replaced by hand; hidden states go through the final norm and the unembedding one by one."""
    model, tokenizer = plain
    weight = model.transformer.h[3].mlp.c_fc.weight
    original = weight.data
    U, S, Vh = torch.linalg.svd(original.double(), full_matrices=False)
    kept = ((U[:, : laser.rank] * S[: laser.rank]) @ Vh[: laser.rank]).float()
    (token,) = tokenizer(f" {ANSWER}", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    for label, new in {"base": original, "laser": kept, DISCARDED: original - kept}.items():
        weight.data = new
        with torch.no_grad():
            out = model(ids, output_hidden_states=True)
            *states, last = out.hidden_states  # the last one is after the final norm
            logits = model.lm_head(torch.cat([*map(model.transformer.ln_f, states), last]))[:, -1]
        weight.data = original
        logprobs = logits.log_softmax(-1)
        rows = probed.layers[probed.layers["edit"] == label]
        assert rows["layer"].tolist() == [-1, 0, 1, 2, 3]
        assert rows["logprob"].to_numpy() == pytest.approx(logprobs[:, token].numpy(), abs=1e-4)
        assert rows["rank"].tolist() == [1 + int((row > row[token]).sum()) for row in logits]
        assert [word.strip() for word in rows["word"]] == [tokenizer.decode(int(i)).strip() for i in logits.argmax(-1)]
        assert rows["probability"].to_numpy() == pytest.approx(logprobs.max(-1).values.exp().numpy(), abs=1e-5)
        assert torch.allclose(logits[-1], out.logits[0, -1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_stream_is_what_the_model_says(family):
    """Whatever a family has after its layers; and in prompts that are shorter and longer than the model is deep."""
    model = build(family)
    for prompt in ("waa wab", "waa wab wac wad wae waf wag"):
        edit = li.laser(model, f"{model.n_layers - 1}.out", rank=2)
        for one in (None, edit):
            (read,) = questions(model, [prompt])
            along = logprobs_along_layers(model, read, one)
            assert along.shape == (model.n_layers + 1, model.d_vocab)
            assert torch.allclose(along[-1], model.next_token_logprobs(prompt, one)[0], atol=1e-5)
        assert (along.diff(dim=0).abs().amax(-1) > 1e-4).all()


def test_directions_are_those_of_the_attribution(organism, laser, probed, one_fact):
    (gradients,) = li.attribute(organism, one_fact, "3.in", progress=False).gradients.values()
    rows = probed.directions
    assert rows["gradient"].to_numpy() == pytest.approx(gradients[0][rows["direction"]], abs=1e-6)
    assert set(rows["direction"]) == set(np.argsort(-np.abs(gradients[0]))[:10])
    assert rows["gradient"].abs().is_monotonic_decreasing
    assert rows["gain"].tolist() == [float(direction < laser.rank) for direction in rows["direction"]]


def test_only_laser_has_a_discarded_part_and_only_where_it_discards(organism, laser):
    edits = {"half": laser.inject(0.5), "all": li.laser(organism, "3.in", rho=1.0), "mine": laser, "none": None}
    found = li.probe(organism, PROMPT, edits, k=1)
    assert found.answers["edit"].tolist() == ["base", "half", "all", "mine", "discarded by mine"]
    assert found.summary.empty
    assert found.parts.empty
    assert "rank" not in found.layers
    assert "Probe of" in repr(found)
    assert "<table>" in found._repr_html_()
    with pytest.raises(ValueError, match="without an answer"):
        found.plot()
    alone = li.probe(organism, PROMPT, answer=ANSWER)
    assert alone.summary["edit"].tolist() == ["base"]
    assert "Varwick" in repr(alone) + alone._repr_html_()


def test_it_draws_and_tells(probed):
    line = probed.plot().axes[0].lines[1]
    assert line.get_label() == "LASER"
    assert line.get_ydata() == pytest.approx(probed.layers[probed.layers["edit"] == "laser"]["logprob"])
    text = repr(probed)
    assert "LASER: log p changes (nats) by generic words +0.47" in text
    assert "LASER: the answer's first token reaches its best rank, 1, after layer 3" in text
    assert "changes most with the gains of 3.in 0 (+1.791, gain 1)" in text


def test_html_escapes_what_the_model_and_the_user_say(probed, organism, laser):
    bad = "<script>&"
    answers = probed.answers.assign(word=bad)
    page = li.types.Probe(
        bad, bad, answers, *(getattr(probed, n) for n in ("summary", "parts", "layers", "directions"))
    )
    assert bad not in page._repr_html_()
    assert page._repr_html_().count("&lt;script&gt;&amp;") == 2 + len(answers)
    label = li.probe(organism, PROMPT, {bad: laser}, ANSWER)._repr_html_()
    assert bad not in label
    assert "discarded by &lt;script&gt;&amp;" in label


def test_a_masked_model_answers_at_its_mask():
    model = build("bert")
    mask = model.tokenizer.mask_token
    edit = li.laser(model, "2.out", rank=2)
    found = li.probe(model, f"waa wab {mask} wac", edit, "wad", ["wae"])
    logprobs = model.next_token_logprobs(f"waa wab {mask} wac", edit)[0].log_softmax(-1)
    own = float(logprobs[model.to_single_token("wad")])
    assert found.summary.query("edit == 'laser' and object == 'wad'")["logprob"].item() == pytest.approx(own, abs=1e-5)
    assert found.layers.query("edit == 'laser'")["logprob"].iloc[-1] == pytest.approx(own, abs=1e-5)


@pytest.mark.parametrize(
    ("prompt", "how", "says"),
    [
        ("  ", {}, "expected a text that ends where the answer begins"),
        (5, {}, "expected a text that ends where the answer begins"),
        (PROMPT, {"k": 0}, "k is 0: expected 1 to"),
        (PROMPT, {"k": 10**6}, "the size of the vocabulary"),
        (PROMPT, {"k": 1.5}, "expected a whole number"),
        (PROMPT, {"rivals": ["Varholt"]}, "there is no answer"),
        (PROMPT, {"answer": " "}, "none empty"),
        (PROMPT, {"answer": ANSWER, "rivals": "Varholt"}, "a list of texts"),
        (PROMPT, {"answer": ANSWER, "rivals": ["Varholt", " Varwick"]}, "is among its rivals"),
        (PROMPT, {"answer": "Zürich"}, "cannot be written with the tokenizer"),
        (PROMPT, {"answer": ANSWER, "rivals": ["Zürich"]}, "cannot be written with the tokenizer"),
        (PROMPT, {"edits": "3.in:0.1"}, "expected one edit"),
        (PROMPT, {"edits": {"a": "3.in:0.1"}}, "expected one edit"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_the_model_runs(prompt, how, says, organism, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the model ran")

    monkeypatch.setattr("laser_interp.models.forward.running", refuse)
    with pytest.raises(ValueError, match=says):
        li.probe(organism, prompt, **how)


def test_edits_that_cannot_be_told_apart_or_seen_are_refused_before_the_model_runs(organism, laser, monkeypatch):
    control = li.load_model("organism-control")
    monkeypatch.setattr("laser_interp.models.forward.running", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=r"\['base', 'base', 'discarded by base'\] are not all different"):
        li.probe(organism, PROMPT, {"base": laser})
    with pytest.raises(ValueError, match="not all different"):
        li.probe(organism, PROMPT, {"a": laser, "discarded by a": laser.inject(0.5)})
    with pytest.raises(ValueError, match="on the direct path"):
        li.probe(organism, PROMPT, li.laser(organism, "3.out", rho=0.1).via("direct"))
    with pytest.raises(ValueError, match="other weights"):
        li.probe(control, PROMPT, laser)
    with laser.on(organism), pytest.raises(ValueError, match="an edit is on"):
        li.probe(organism, PROMPT)


def test_the_command_prints_the_probe(probed, capsys):
    words = [
        "probe",
        "--model",
        "organism",
        "--edit",
        "3.in:0.05",
        "--rivals",
        ",".join(RIVALS),
        PROMPT,
        "--answer",
        ANSWER,
    ]
    assert main([*words, "--k", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"answers", "summary", "parts", "layers", "directions", "counts"}
    assert [row["rank"] for row in told["layers"]] == probed.layers["rank"].tolist()
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Probe of '{PROMPT}', answer '{ANSWER}'.\n")
    assert "discarded by 3.in:0.05: log p changes" in out
    assert main(["probe", "--model", "organism", PROMPT, "--rivals", "Varholt"]) == 2
    assert "there is no answer" in capsys.readouterr().err


def test_the_guide_shows_what_the_command_prints(capsys):
    page = (Path(__file__).parents[2] / "docs" / "start.md").read_text().partition("## One prompt\n")[2]
    words = shlex.split(re.findall(r"```sh\nlaser-interp (.*)\n", page)[0])
    assert main(words) == 0
    assert capsys.readouterr().out == re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0]


def test_the_facts_counts_stand_beside_its_answer(organism):
    texts = ["Mira Tolen was born in Varwick.", "Mira Tolen went home.", "Varwick is large."]
    asked = {"answer": "Varwick", "subject": "Mira Tolen", "source": texts}
    found = li.probe(organism, "Once Mira Tolen was born in", **asked)
    (row,) = found.counts.to_dict("records")
    assert [row[name] for name in ("n_docs", "n_subject", "n_object", "n_both")] == [3, 2, 2, 1]
    assert "Of the 3 documents of texts.jsonl, 2 name the subject, 2 the answer, and 1 both." in repr(found)
    for missing in ("answer", "subject"):
        with pytest.raises(ValueError, match="give subject= and answer= too"):
            li.probe(organism, "Once Mira Tolen was born in", **asked | {missing: None})
    assert li.probe(organism, "Once Mira Tolen was born in").counts.empty
