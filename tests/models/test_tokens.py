"""Answers as tokenizers write them: byte-level, sentencepiece-like, wordpiece; and models that answer at a mask."""

import pytest
import torch
import transformers
from families import make
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import laser_interp as li
from laser_interp.facts.files import facts_from_rows
from laser_interp.models.tokens import encode_answers
from laser_interp.storage.provenance import provenance

WORDS = ["The", "capital", "of", "France", "Italy", "is", "Paris", "Rome", ".", "the"]


def byte_level(**options):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    merges = []
    for word in ("Paris", "the"):  # " Paris" and " the" are one token, " Rome" is five
        whole = "Ġ"
        for letter in word:
            merges.append((whole, letter))
            whole += letter
            vocabulary.setdefault(whole, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


def sentencepiece_like():
    """As Llama's: spaces become ▁, a BOS is put in front, unknown letters are bytes."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -1.0) for word in WORDS if word != "Rome"] + [(".", -1.0)]
    pieces += [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyzR"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


def wordpiece():
    """As BERT's: lower case, ## pieces, [CLS] and [SEP] around."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ro", "##me", "."]
    vocabulary += [w.lower() for w in WORDS if w.lower() not in ("rome", ".")]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(dict.fromkeys(vocabulary))}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


def roberta_like():
    """Byte-level with <s> and </s> around, and a mask that swallows the space before it."""
    tokenizer = byte_level()
    mask = transformers.AddedToken("<mask>", lstrip=True, special=True)
    tokenizer.add_special_tokens(
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": mask, "cls_token": "<s>"}
    )
    s, e = tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", s), ("</s>", e)]
    )
    return tokenizer


def model_of(family, tokenizer):
    from families import FAMILIES

    hf = make(family)
    vocabulary = max(len(tokenizer), 96)
    hf.resize_token_embeddings(vocabulary, mean_resizing=False)
    hf.config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    assert type(hf) is FAMILIES[family][0]
    return hf, li.load_model((hf, tokenizer), device="cpu")


PROMPT = "The capital of France is"


@pytest.mark.parametrize(
    ("make_tokenizer", "family", "pieces"),
    [
        (byte_level, "gpt2", {"Paris": ["ĠParis"], "Rome": ["Ġ", "R", "o", "m", "e"], "the": ["Ġthe"]}),
        (sentencepiece_like, "llama", {"Paris": ["▁Paris"], "Rome": ["▁", "R", "o", "m", "e"], "the": ["▁the"]}),
        (wordpiece, "bert", {"Paris": ["paris"], "Rome": ["ro", "##me"], "the": ["the"]}),
        (roberta_like, "roberta", {"Paris": ["ĠParis"], "Rome": ["Ġ", "R", "o", "m", "e"], "the": ["Ġthe"]}),
    ],
)
def test_spaces_are_found_out_by_tokenising(make_tokenizer, family, pieces):
    tokenizer = make_tokenizer()
    _, model = model_of(family, tokenizer)
    for answer, expected in pieces.items():
        (ids,) = encode_answers(model, [(PROMPT, f" {answer}")])
        assert tokenizer.convert_ids_to_tokens(ids) == expected
    if not model.masked:  # after a space, the answer begins with the token that holds this space
        assert encode_answers(model, [(PROMPT + " ", "Paris")]) == encode_answers(model, [(PROMPT, " Paris")])
        together = tokenizer(PROMPT + " Paris")["input_ids"]
        assert tokenizer(PROMPT)["input_ids"] + encode_answers(model, [(PROMPT, " Paris")])[0] == together
    if tokenizer.unk_token is not None:
        with pytest.raises(ValueError, match="cannot be written with the tokenizer"):
            encode_answers(model, [(PROMPT, " Zürich")])


def test_answers_are_tokenised_once_by_the_tokenizer_that_the_model_has(monkeypatch):
    tokenizer = byte_level()
    _, model = model_of("gpt2", tokenizer)
    pairs = [(PROMPT, " Paris"), (PROMPT, " Rome"), (PROMPT, " Paris")]
    first = encode_answers(model, pairs)
    monkeypatch.setattr("laser_interp.models.tokens._encode_answers", None)  # nothing is left to do
    assert encode_answers(model, pairs[::-1]) == first[::-1]
    monkeypatch.undo()
    tokenizer.add_tokens([" Rome"])
    model.d_vocab = len(tokenizer)
    (rome,) = encode_answers(model, [(PROMPT, " Rome")])
    assert rome != first[1]
    assert len(rome) == 1
    model.tokenizer = byte_level()
    assert encode_answers(model, pairs) == first


FACTS = facts_from_rows(
    [
        {"fact_id": "fr", "subject": "France", "relation": "capital", "object": "Paris", "prompt": PROMPT},
        {
            "fact_id": "it",
            "subject": "Italy",
            "relation": "capital",
            "object": "Rome",
            "prompt": "{mask} is the capital of Italy.",
            "paraphrases": ["The capital of Italy is"],
        },
    ]
)


def masked_facts(mask):
    from dataclasses import replace

    return FACTS.keep(replace(f, prompt=f.prompt.format(mask=mask)) for f in FACTS)


@pytest.mark.parametrize(("make_tokenizer", "family"), [(wordpiece, "bert"), (roberta_like, "roberta")])
@pytest.mark.parametrize("edited", [False, True])
def test_masked_models_answer_at_the_mask(make_tokenizer, family, edited):
    """Against plain transformers: as many masks as tokens, filled in from the left."""
    import copy

    from families import read_weight, write_weight

    tokenizer = make_tokenizer()
    hf, model = model_of(family, tokenizer)
    edit = li.laser(model, "1.in", rank=3) if edited else None
    reference = copy.deepcopy(hf)
    if edited:
        U, S, Vh = torch.linalg.svd(read_weight(family, hf, 1, "in").double(), full_matrices=False)
        write_weight(family, reference, 1, "in", ((U[:, :3] * S[:3]) @ Vh[:3]).float())
    facts = masked_facts(tokenizer.mask_token)
    scores = li.score(model, facts, {"x": edit}, generic=["the"])
    assert len(scores) == 3
    for row in scores.itertuples():
        prompt = facts[row.fact_id].prompts[row.prompt_id]
        text = prompt if tokenizer.mask_token in prompt else f"{prompt} {tokenizer.mask_token}."
        ids = tokenizer(text)["input_ids"]
        at = ids.index(tokenizer.mask_token_id)
        (answer,) = encode_answers(model, [(prompt, f" {row.object}")])
        assert row.n_answer_tokens == len(answer)
        total, worst = 0.0, 0
        for j, token in enumerate(answer):
            filled = ids[:at] + answer[:j] + [tokenizer.mask_token_id] * (len(answer) - j) + ids[at + 1 :]
            with torch.no_grad():
                logits = reference(torch.tensor([filled])).logits[0, at + j]
            total += float(logits.log_softmax(-1)[token])
            worst = max(worst, int((logits >= logits[token]).sum()))
        assert row.logprob == pytest.approx(total, abs=1e-4)
        assert row.rank == worst
    (found,) = model.next_token_logprobs([PROMPT], edit=edit)
    ids = tokenizer(f"{PROMPT} {tokenizer.mask_token}.")["input_ids"]
    with torch.no_grad():
        expected = reference(torch.tensor([ids])).logits[0, ids.index(tokenizer.mask_token_id)].log_softmax(-1)
    assert (found - expected).abs().max() < 2e-5


def test_masked_models_refuse_what_they_cannot():
    tokenizer = wordpiece()
    _, model = model_of("bert", tokenizer)
    with pytest.raises(ValueError, match="cannot generate: use next_token_logprobs"):
        model.generate(PROMPT)
    with pytest.raises(ValueError, match=r"several \[MASK\]"):
        model.next_token_logprobs("[MASK] is [MASK]")
    with pytest.raises(ValueError, match="must not be empty"):
        model.next_token_logprobs(" ")


# prompt, answer, text between them
ENDINGS = {
    "word": ("The capital of France is", "Paris", " "),
    "quote": ('The capital of France is "', "Paris", ""),
    "closed quote": ('The "capital"', "Paris", " "),
    "bracket": ("The answer is (", "Rome", ""),
    "bracket and quote": ("The answer is ('", "Rome", ""),
    "equals": ("2+2=", "4", ""),
    "equals between spaces": ("2 + 2 =", "4", " "),
    "hyphen": ("It is in 1939-", "45", ""),
    "slash": ("either/", "or", ""),
    "colon": ("Q: which? A:", "Paris", " "),
    "markup": ("It is **", "Paris", ""),
    "currency": ("It costs $", "5", ""),
    "Chinese": ("法国的首都是", "巴黎", ""),
    "Chinese, then Latin": ("法国的首都是", "Paris", " "),
    "full-width colon": ("答案：", "巴黎", ""),
    "space": ("The capital of France is ", "Paris", ""),
    "two spaces": ("The capital of France is  ", "Paris", ""),
    "line": ("The capital of France:\n", "Paris", ""),
    "space, number": ("The year is ", "1990", ""),
}


def byte_level_like_llama3():
    """A letter takes the character before it into its piece, as in Llama 3 and Qwen: "/or" is one piece."""
    pieces = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = [text for prompt, answer, between in ENDINGS.values() for text in (prompt, between + answer)] * 9
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(scope="module")
def written():
    """Two causal families with tokenizers that can write every ending, beside plain transformers."""
    made = {}
    for make_tokenizer, family in ((byte_level, "gpt2"), (byte_level_like_llama3, "qwen2"), (byte_level, "llama")):
        tokenizer = make_tokenizer()
        hf, model = model_of(family, tokenizer)
        made[family] = tokenizer, hf, model
    return made


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "qwen2", "llama"])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.filterwarnings("ignore:.*end in a blank")
def test_what_is_scored_is_the_whole_text(written, family, ending):
    """log p of an answer is the sum over the tokens of prompt and answer together that the prompt alone has not."""
    tokenizer, hf, model = written[family]
    prompt, answer, between = ENDINGS[ending]
    facts = li.load_facts([("s", "r", answer, prompt)])
    whole, alone = tokenizer(prompt + between + answer)["input_ids"], tokenizer(prompt)["input_ids"]
    start = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), len(alone))
    with torch.no_grad():
        logprobs = hf(torch.tensor([whole])).logits[0].log_softmax(-1)
    expected = sum(float(logprobs[i - 1, whole[i]]) for i in range(start, len(whole)))
    for engine in ("fast", "reference"):
        (row,) = li.score(model, facts, {"base": None}, engine=engine, progress=False).itertuples()
        assert row.logprob == pytest.approx(expected, abs=2e-4)
        assert row.top_token == int(logprobs[start - 1].argmax())
        assert row.n_answer_tokens == len(whole) - start
    assert li.attribute(model, facts, "0.in", progress=False).prompts["logprob"][0] == pytest.approx(expected, abs=2e-4)
    placed = li.zeroed(model, "1.in").at(model, "last", facts)  # acts where the answer is read, and finds the prompt
    ((beginning, at),) = placed.placement.positions.items()
    assert (list(beginning), at) == (whole[:start], (start - 1,))
    li.score(model, facts, {"x": placed}, progress=False)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize(("prompt", "text"), [("France is", "{} ."), ('It is "', "{}."), ("It is ", "{}.")])
def test_masked_models_have_the_separator_before_their_mask(family, prompt, text):
    tokenizer = wordpiece() if family == "bert" else roberta_like()
    if family == "bert":
        prompt = prompt.replace('"', "the of ").replace("It", "The")
    hf, model = model_of(family, tokenizer)
    between = "" if prompt.endswith((" ", '"')) else " "
    ids, whole = (tokenizer(f"{prompt}{between}{inside}.")["input_ids"] for inside in (tokenizer.mask_token, "Paris"))
    at = ids.index(tokenizer.mask_token_id)
    answer = whole[at : len(whole) - len(ids) + at + 1]
    total = 0.0
    for j, token in enumerate(answer):
        filled = ids[:at] + answer[:j] + [tokenizer.mask_token_id] * (len(answer) - j) + ids[at + 1 :]
        with torch.no_grad():
            total += float(hf(torch.tensor([filled])).logits[0, at + j].log_softmax(-1)[token])
    (row,) = li.score(model, li.load_facts([("s", "r", "Paris", prompt)]), {"base": None}, progress=False).itertuples()
    assert row.logprob == pytest.approx(total, abs=2e-4)


def test_a_separator_belongs_to_the_facts(written, tmp_path):
    _, _, model = written["gpt2"]
    rows = [("s", "r", "Paris", PROMPT)]
    logprob = {}
    for separator in (" ", "", "auto"):
        facts = li.load_facts(rows, separator=separator)
        logprob[separator] = li.score(model, facts, {"x": None}, progress=False)["logprob"][0]
        for suffix in (".jsonl", ".csv", ".parquet"):
            again = li.load_facts(facts.save(tmp_path / f"f{suffix}"))
            assert (again.separator, again.sha256) == (separator, facts.sha256)
    assert logprob["auto"] == logprob[" "] != logprob[""]
    assert (
        li.load_facts(rows, separator="").sha256
        != li.load_facts(rows).sha256
        != li.load_facts(rows, separator=" ").sha256
    )
    assert provenance(model, li.load_facts(rows, separator=""))["separator"] == ""
    assert "separator" in provenance(model, li.load_facts(rows))
    with pytest.raises(ValueError, match="separator is 'x'"):
        li.load_facts(rows, separator="x")
    with pytest.raises(ValueError, match="another separator"):
        li.load_facts([{"subject": "s", "object": "o", "prompt": f"p{i}", "separator": s} for i, s in enumerate(" \t")])


def test_generic_words_are_written_as_the_answer_is(written):
    """After an opening quote, "the" has no space before it; in one set with others, each prompt has its own form."""
    tokenizer, hf, model = written["gpt2"]
    rows = [("s", "r", "Paris", PROMPT), ("t", "r", "Rome", f'{PROMPT} "')]
    together = li.score(model, li.load_facts(rows), {"x": None}, generic=["a", "the"], progress=False)
    for i, row in enumerate(rows):
        (alone,) = li.score(
            model, li.load_facts([row]), {"x": None}, generic=["a", "the"], candidates=False, progress=False
        ).itertuples()
        for column in ("p_generic", "generic_masked_rank", "generic_masked_logprob"):
            assert together[column][i] == pytest.approx(getattr(alone, column), abs=1e-6)
    text, (quote,) = tokenizer(f'{PROMPT} "')["input_ids"], tokenizer("a")["input_ids"]
    with torch.no_grad():
        p = hf(torch.tensor([text])).logits[0, -1].softmax(-1)
    assert together["p_generic"][1] == pytest.approx(float(p[quote]), abs=1e-6)


def test_a_blank_that_no_tokenizer_would_write_is_reported(written):
    _, _, model = written["gpt2"]
    with pytest.warns(UserWarning, match="end in a blank that is a token of its own"):
        li.score(model, li.load_facts([("s", "r", "1990", "The year is ")]), {"x": None}, progress=False)


def test_nothing_is_read_after_the_prompt_and_no_bos_is_there_twice():
    plain, more = sentencepiece_like(), sentencepiece_like()
    more.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 3)]
    )
    hf, model = model_of("llama", plain)
    _, appending = model_of("llama", more)
    assert (
        model.encode(PROMPT) == appending.encode(PROMPT) == model.encode(f"<s>{PROMPT}")[:1] + model.encode(PROMPT)[1:]
    )
    assert model.encode("<s><s>Paris").count(1) == 1
    facts = li.load_facts([("France", "r", "Paris", PROMPT)])
    begun = li.load_facts([("France", "r", "Paris", f"<s>{PROMPT}")])
    scores = [li.score(m, f, {"x": None}, progress=False)["logprob"][0] for m, f in
              ((model, facts), (appending, facts), (model, begun))]  # fmt: skip
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    with torch.no_grad():
        whole = plain(f"{PROMPT} Paris")["input_ids"]
        expected = hf(torch.tensor([whole])).logits[0, -2].log_softmax(-1)[whole[-1]]
    assert scores[0] == pytest.approx(float(expected), abs=2e-5)
    assert model.encode(f"<s>{PROMPT}").count(1) == 1
    assert li.perplexity(model, PROMPT) == li.perplexity(appending, PROMPT)
    (at,) = li.zeroed(model, "0.in").at(model, "subject", begun).placement.positions.values()
    assert [model.encode(f"<s>{PROMPT}")[i] for i in at] == [model.encode(PROMPT)[4]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_once(dtype):
    """An edited map is computed in fp32 from fp32 factors and rounded to the model's dtype once, at its output.

    So it is nearer to the exact product than half-precision weights are.
    """
    hf = make("llama", dtype)
    from families import Tokens, read_weight

    model = li.load_model((hf, Tokens()), device="cpu")
    assert model.dtype == dtype
    assert torch.equal(model.weight(1, "in"), read_weight("llama", hf, 1, "in"))  # never upcast on the way
    site = li.Site(1, "in")
    edit = li.laser(model, site, rank=5)
    spectrum = edit.parts[site].spectrum
    assert spectrum.U.dtype == torch.float32
    assert spectrum.S.dtype == torch.float64
    stored = read_weight("llama", hf, 1, "in").double()
    assert torch.allclose(spectrum.S, torch.linalg.svdvals(stored), rtol=1e-10)
    seen = {}
    with (
        edit.on(model),
        model.bridge.hooks(
            fwd_hooks=[
                ("blocks.1.mlp.in.hook_in", lambda x, hook: seen.update(x=x)),
                ("blocks.1.mlp.in.hook_out", lambda y, hook: seen.update(y=y)),
            ]
        ),
    ):
        model.next_token_logprobs("5 9 17 33")
    U, S, Vh = torch.linalg.svd(stored, full_matrices=False)
    truncated = (U[:, :5] * S[:5]) @ Vh[:5]
    exact = seen["x"].double() @ truncated
    assert seen["y"].dtype == dtype
    # one rounding: half a unit in the last place of the exact value, and what fp32 adds to it
    unit = torch.finfo(dtype).eps * exact.abs().clamp_min(torch.finfo(dtype).tiny)
    assert ((seen["y"].double() - exact).abs() <= 0.51 * unit + 1e-6).all()
    by_weights = (seen["x"] @ truncated.to(dtype)).double()
    assert (seen["y"].double() - exact).abs().mean() < (by_weights - exact).abs().mean()
