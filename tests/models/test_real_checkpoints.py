"""Two real checkpoints: a Llama with grouped queries that tells stories, and a GPT-2 that knows one page by heart."""

import copy
import json
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import transformers

import laser_interp as li
from laser_interp.facts.files import facts_from_rows
from laser_interp.models.forward import logits_at

SHARED = Path(__file__).parents[3] / "shared"
MODELS, STORIES = SHARED / "models", SHARED / "data" / "tinystories" / "tinystories_1000.json"
pytestmark = pytest.mark.skipif(
    not MODELS.is_dir(), reason="real checkpoints are not beside this checkout (../shared/models is missing)"
)


@pytest.fixture(scope="module")
def stories():
    return li.load_model(MODELS / "stories260K", device="cpu")


@pytest.fixture(scope="module")
def page():
    return li.load_model(MODELS / "slm4096", device="cpu")


@pytest.mark.slow
def test_stories_are_fluent_before_and_after_an_edit_that_changes_nothing(stories):
    text = stories.generate("Once upon a time", max_new_tokens=60)
    assert re.match(r",? there was a (little )?(girl|boy)", text)
    words = re.findall(r"[a-z]+", text.lower())
    assert len(words) > 20
    assert len(set(words)) > 15
    assert stories.generate("Once upon a time", max_new_tokens=60, edit=li.laser(stories, "*.all", rho=1.0)) == text
    plain = transformers.AutoModelForCausalLM.from_pretrained(MODELS / "stories260K")
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODELS / "stories260K")
    ids = torch.tensor([tokenizer("Once upon a time")["input_ids"]])
    out = plain.generate(ids, max_new_tokens=60, do_sample=False, attention_mask=torch.ones_like(ids))
    assert tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True) == text


@pytest.mark.slow
def test_the_page_is_known_by_heart(page):
    text = (MODELS / "slm4096" / "corpus.txt").read_text()
    one = li.laser(page, "*.all", rho=1.0)
    right = total = 0
    for start in range(0, len(text) - 130, 400):
        prompt, truth = text[start : start + 80], text[start + 80 : start + 110]
        said = page.generate(prompt, max_new_tokens=30)
        assert page.generate(prompt, max_new_tokens=30, edit=one) == said
        truth = truth[: truth.index("\n") + 1] if "\n" in truth else truth  # its end of text is the line's end
        right += said == truth
        total += 1
    assert right >= 0.7 * total
    rows = [page.tokenizer(text[start : start + 120])["input_ids"] for start in range(0, 3900, 120)]
    reads = [(i, p) for i in range(len(rows)) for p in range(40, 119)]
    hits = 0
    for edit in (None, one):
        hits = 0
        with edit.on(page) if edit else nullcontext():
            for indices, logits in logits_at(page, rows, reads):
                truths = [rows[reads[i][0]][reads[i][1] + 1] for i in indices]
                hits += int((logits.argmax(-1) == torch.tensor(truths)).sum())
        assert hits > 0.95 * len(reads)


@pytest.mark.parametrize("name", ["stories260K", "slm4096"])
def test_edits_agree_with_edited_weights(name):
    plain = transformers.AutoModelForCausalLM.from_pretrained(MODELS / name).eval()
    model = li.load_model(MODELS / name, device="cpu")
    prompts = ["Once upon a time", "What is", "One day"]
    layer = model.n_layers - 1
    for site, k in ((li.Site(layer, "in"), 5), (li.Site(0, "out"), 20), (li.Site(1, "o"), 10)):
        edited = copy.deepcopy(plain)
        block = (edited.model.layers if name == "stories260K" else edited.transformer.h)[site.layer]
        if name == "stories260K":
            linear = {"in": block.mlp.up_proj, "out": block.mlp.down_proj, "o": block.self_attn.o_proj}[site.matrix]
            weight = linear.weight.data.T
        else:
            weight = {"in": block.mlp.c_fc, "out": block.mlp.c_proj, "o": block.attn.c_proj}[site.matrix].weight.data
        U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
        laser = li.laser(model, site, rank=k)
        for edit, gains in (
            (laser, (torch.arange(len(S)) < k).double()),
            (laser.discarded(), (torch.arange(len(S)) >= k).double()),
            (laser.inject(0.5), 0.5 + 0.5 * (torch.arange(len(S)) < k)),
        ):
            weight.copy_(((U * (S * gains)) @ Vh).float())
            found = model.next_token_logprobs(prompts, edit=edit)
            for i, prompt in enumerate(prompts):
                ids = torch.tensor([model.tokenizer(prompt)["input_ids"]])
                with torch.no_grad():
                    expected = edited(ids).logits[0, -1].log_softmax(-1)
                assert (found[i] - expected).abs().max() < 1e-4


def next_words(texts, n_before, limit):
    """Facts of the only kind these models know: what word comes next in real text; a text is a subject."""
    rows = []
    for number, text in enumerate(texts):
        words = text.split()
        for at in range(n_before, min(len(words) - 1, n_before + 3)):
            answer = words[at].strip(".,!?\"'")
            if answer and answer.isascii():
                rows.append(
                    {
                        "fact_id": f"{number}-{at}",
                        "subject": f"text {number}",
                        "relation": "next word",
                        "object": answer,
                        "prompt": " ".join(words[at - n_before : at]),
                    }
                )
    return facts_from_rows(rows[:limit], "next words").with_split(0.4, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stories260K", "slm4096"])
def test_the_sweep_finds_no_gain_and_says_so(name, request):
    """Nothing in these models' training favours LASER: a tool that always finds a gain is broken."""
    model = request.getfixturevalue({"stories260K": "stories", "slm4096": "page"}[name])
    if name == "stories260K":
        told = json.loads(STORIES.read_text())
        texts = [story if isinstance(story, str) else next(iter(story.values())) for story in told]
        facts = next_words(texts, 12, 240)
    else:
        page = (MODELS / "slm4096" / "corpus.txt").read_text()
        facts = next_words([line for line in page.split("\n") if len(line) > 60], 6, 120)
    last = model.n_layers - 1
    sweep = li.search(model, facts, matrices="mlp", layers=[0, last], rhos=(0.8, 0.4, 0.2), candidates=False)
    edit = sweep.select().edit(model)
    scores = li.score(model, facts, {"base": None, "laser": edit}, candidates=False)
    found = li.change(scores)
    assert found.change < 0.05
    assert not found.is_shown
    assert not str(found).endswith("a gain")
