"""Tiny random models of every supported family, and their matrices in plain transformers.

The mapping below is written from transformers' own modules, independently of the package: the tests
compare what the package does through TransformerLens with weights replaced here.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

import laser_interp as li
from laser_interp.models.forward import logits_at
from laser_interp.models.hooks import count_hooks

VOCAB, LAYERS, D, HEADS, INNER = 96, 3, 32, 4, 48


def _blocks(path: str) -> Callable[[Any, int], Any]:
    def at(hf: Any, layer: int) -> Any:
        for name in path.split("."):
            hf = getattr(hf, name)
        return hf[layer]

    return at


def _linear(block: Any, path: str) -> Tensor:
    """A torch Linear's weight as [d_in, d_out], a view."""
    for name in path.split("."):
        block = getattr(block, name)
    return block.weight.data.T


def _conv1d(block: Any, path: str) -> Tensor:
    for name in path.split("."):
        block = getattr(block, name)
    return block.weight.data


def _llama(matrix: str) -> Callable[[Any], Tensor]:
    attn = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
    mlp = {"in": "up_proj", "gate": "gate_proj", "out": "down_proj"}
    path = f"self_attn.{attn[matrix]}" if matrix in attn else f"mlp.{mlp[matrix]}"
    return lambda block: _linear(block, path)


def _gpt2(matrix: str) -> Callable[[Any], Tensor]:
    if matrix in "qkv":
        start = "qkv".index(matrix) * D
        return lambda block: _conv1d(block, "attn.c_attn")[:, start : start + D]
    return lambda block: _conv1d(block, {"o": "attn.c_proj", "in": "mlp.c_fc", "out": "mlp.c_proj"}[matrix])


def _neox(matrix: str) -> Callable[[Any], Tensor]:
    """Query, key and value rows are interleaved head by head: [head, (q k v), d_head]."""
    if matrix in "qkv":
        return lambda block: block.attention.query_key_value.weight.data.view(HEADS, 3, D // HEADS, D)[
            :, "qkv".index(matrix)
        ]
    paths = {"o": "attention.dense", "in": "mlp.dense_h_to_4h", "out": "mlp.dense_4h_to_h"}
    return lambda block: _linear(block, paths[matrix])


def _phi3(matrix: str) -> Callable[[Any], Tensor]:
    if matrix in "qkv":
        start = "qkv".index(matrix) * D
        return lambda block: block.self_attn.qkv_proj.weight.data[start : start + D].T
    if matrix in ("gate", "in"):
        rows = slice(0, INNER) if matrix == "gate" else slice(INNER, 2 * INNER)
        return lambda block: block.mlp.gate_up_proj.weight.data[rows].T
    return lambda block: _linear(block, {"o": "self_attn.o_proj", "out": "mlp.down_proj"}[matrix])


def _paths(**paths: str) -> Callable[[str], Callable[[Any], Tensor]]:
    paths = {name.rstrip("_"): path for name, path in paths.items()}
    return lambda matrix: lambda block: _linear(block, paths[matrix])


_BERT = _paths(
    q="attention.self.query",
    k="attention.self.key",
    v="attention.self.value",
    o="attention.output.dense",
    in_="intermediate.dense",
    out="output.dense",
)
_COMMON: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
_LLAMA_LIKE = _COMMON | {
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
_BERT_LIKE = _COMMON | {
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 66,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

# Which of transformers' attentions has the bridge's precision: eager's softmax is in fp32 whatever the model's
# dtype, and so is the bridge's, but where it splits a fused QKV it computes all in the model's dtype, as sdpa does.
ATTENTION = {"gpt_neox": "sdpa", "phi3": "sdpa"}

DENSE = ("q", "k", "v", "o", "in", "out")
GATED = ("q", "k", "v", "o", "in", "gate", "out")

# name -> (model class, config, where the blocks are, matrices, matrix -> block -> [d_in, d_out] view)
FAMILIES: dict[str, tuple[Any, Any, Callable[[Any, int], Any], tuple[str, ...], Any]] = {
    "gpt2": (
        tf.GPT2LMHeadModel,
        lambda: tf.GPT2Config(**_COMMON, n_embd=D, n_layer=LAYERS, n_head=HEADS, n_inner=INNER, n_positions=64),
        _blocks("transformer.h"),
        DENSE,
        _gpt2,
    ),
    "gptj": (
        tf.GPTJForCausalLM,
        lambda: tf.GPTJConfig(
            **_COMMON, n_embd=D, n_layer=LAYERS, n_head=HEADS, n_inner=INNER, n_positions=64, rotary_dim=4,
            tie_word_embeddings=False,
        ),
        _blocks("transformer.h"),
        DENSE,
        _paths(q="attn.q_proj", k="attn.k_proj", v="attn.v_proj", o="attn.out_proj", in_="mlp.fc_in", out="mlp.fc_out"),
    ),
    "gpt_neox": (
        tf.GPTNeoXForCausalLM,
        lambda: tf.GPTNeoXConfig(
            **_COMMON, hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=INNER,
            max_position_embeddings=64,
        ),
        _blocks("gpt_neox.layers"),
        DENSE,
        _neox,
    ),
    "gpt_neo": (
        tf.GPTNeoForCausalLM,
        lambda: tf.GPTNeoConfig(
            **_COMMON, hidden_size=D, num_layers=LAYERS, num_heads=HEADS, intermediate_size=INNER, window_size=4,
            attention_types=[[["global", "local", "global"], 1]], max_position_embeddings=64,
        ),
        _blocks("transformer.h"),
        DENSE,
        _paths(
            q="attn.attention.q_proj", k="attn.attention.k_proj", v="attn.attention.v_proj",
            o="attn.attention.out_proj", in_="mlp.c_fc", out="mlp.c_proj",
        ),
    ),
    "llama": (tf.LlamaForCausalLM, lambda: tf.LlamaConfig(**_LLAMA_LIKE), _blocks("model.layers"), GATED, _llama),
    "llama_gqa": (
        tf.LlamaForCausalLM,
        lambda: tf.LlamaConfig(**_LLAMA_LIKE | {"num_key_value_heads": 2}),
        _blocks("model.layers"),
        GATED,
        _llama,
    ),
    "mistral": (
        tf.MistralForCausalLM,
        lambda: tf.MistralConfig(**_LLAMA_LIKE | {"num_key_value_heads": 2}, sliding_window=None),
        _blocks("model.layers"),
        GATED,
        _llama,
    ),
    "qwen2": (
        tf.Qwen2ForCausalLM,
        lambda: tf.Qwen2Config(**_LLAMA_LIKE | {"num_key_value_heads": 2}),
        _blocks("model.layers"),
        GATED,
        _llama,
    ),
    "qwen3": (
        tf.Qwen3ForCausalLM,
        lambda: tf.Qwen3Config(**_LLAMA_LIKE | {"num_key_value_heads": 2}, head_dim=D // HEADS),
        _blocks("model.layers"),
        GATED,
        _llama,
    ),
    "phi": (
        tf.PhiForCausalLM,
        lambda: tf.PhiConfig(**_LLAMA_LIKE),
        _blocks("model.layers"),
        DENSE,
        _paths(
            q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj", o="self_attn.dense", in_="mlp.fc1",
            out="mlp.fc2",
        ),
    ),
    "phi3": (
        tf.Phi3ForCausalLM,
        lambda: tf.Phi3Config(**_LLAMA_LIKE, original_max_position_embeddings=64),
        _blocks("model.layers"),
        GATED,
        _phi3,
    ),
    "gemma2": (
        tf.Gemma2ForCausalLM,
        lambda: tf.Gemma2Config(
            **_LLAMA_LIKE | {"num_key_value_heads": 2, "tie_word_embeddings": True}, head_dim=D // HEADS,
            query_pre_attn_scalar=8, sliding_window=4,
        ),
        _blocks("model.layers"),
        GATED,
        _llama,
    ),
    "qwen3_tied": (
        tf.Qwen3ForCausalLM,
        lambda: tf.Qwen3Config(
            **_LLAMA_LIKE | {"num_key_value_heads": 2, "tie_word_embeddings": True}, head_dim=2 * D // HEADS
        ),
        _blocks("model.layers"),
        GATED,
        _llama,
    ),
    "smollm3": (
        tf.SmolLM3ForCausalLM,
        lambda: tf.SmolLM3Config(
            **_LLAMA_LIKE | {"num_key_value_heads": 2, "tie_word_embeddings": True}, no_rope_layers=[1, 0, 1],
        ),
        _blocks("model.layers"),
        GATED,
        _llama,
    ),
    "olmo": (tf.OlmoForCausalLM, lambda: tf.OlmoConfig(**_LLAMA_LIKE), _blocks("model.layers"), GATED, _llama),
    "olmo2": (
        tf.Olmo2ForCausalLM,
        lambda: tf.Olmo2Config(**_LLAMA_LIKE | {"num_key_value_heads": 2}),
        _blocks("model.layers"),
        GATED,
        _llama,
    ),
    "gemma3": (
        tf.Gemma3ForCausalLM,
        lambda: tf.Gemma3TextConfig(
            **_LLAMA_LIKE | {"num_key_value_heads": 1, "tie_word_embeddings": True}, head_dim=2 * D // HEADS,
            query_pre_attn_scalar=16, sliding_window=4,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        _blocks("model.layers"),
        GATED,
        _llama,
    ),
    "opt": (
        tf.OPTForCausalLM,
        lambda: tf.OPTConfig(
            **_COMMON, hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=HEADS, ffn_dim=INNER,
            max_position_embeddings=64, word_embed_proj_dim=D, dropout=0.0,
        ),
        _blocks("model.decoder.layers"),
        DENSE,
        _paths(
            q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj", o="self_attn.out_proj", in_="fc1",
            out="fc2",
        ),
    ),
    "openai-gpt": (
        tf.OpenAIGPTLMHeadModel,
        lambda: tf.OpenAIGPTConfig(vocab_size=VOCAB, n_embd=D, n_layer=LAYERS, n_head=HEADS, n_positions=64),
        _blocks("transformer.h"),
        DENSE,
        _gpt2,
    ),
    "roberta": (
        tf.RobertaForMaskedLM,
        lambda: tf.RobertaConfig(**_BERT_LIKE, type_vocab_size=1),
        _blocks("roberta.encoder.layer"),
        DENSE,
        _BERT,
    ),
    "bert": (
        tf.BertForMaskedLM,
        lambda: tf.BertConfig(**_BERT_LIKE, type_vocab_size=2),
        _blocks("bert.encoder.layer"),
        DENSE,
        _BERT,
    ),
}  # fmt: skip


def make(family: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A random model with every weight, bias and norm away from its symmetric start."""
    cls, config, *_ = FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = cls._from_config(config(), attn_implementation=ATTENTION.get(family, "eager")).eval()
        for name, parameter in hf.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.data += (0.15 if parameter.ndim > 1 else 0.3) * noise
            if name.endswith("norm.weight") and family.startswith("gemma"):
                parameter.data *= 0.5
    return hf.to(dtype)


def weight_view(family: str, hf: Any, layer: int, matrix: str) -> Tensor:
    """The matrix in plain transformers, [d_in, d_out] (NeoX: [head, d_head, d_in]), writable."""
    _, _, blocks, _, view = FAMILIES[family]
    return view(matrix)(blocks(hf, layer))


def read_weight(family: str, hf: Any, layer: int, matrix: str) -> Tensor:
    view = weight_view(family, hf, layer, matrix)
    return view.reshape(D, D).T.clone() if view.ndim == 3 else view.clone()


def write_weight(family: str, hf: Any, layer: int, matrix: str, weight: Tensor) -> None:
    view = weight_view(family, hf, layer, matrix)
    view.copy_(weight.T.reshape(view.shape) if view.ndim == 3 else weight)


class Tokens:
    """A stand-in tokenizer: words are numbers. Agreement is about models, not about text."""

    unk_token_id = None
    pad_token_id = 0
    eos_token_id = 1
    mask_token = None
    mask_token_id = None

    def __call__(self, text: str | list[str], add_special_tokens: bool = True) -> dict[str, Any]:
        if isinstance(text, list):
            return {"input_ids": [self(t)["input_ids"] for t in text]}
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(str(int(i)) for i in ids)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return list(map(str, ids))


PROMPTS = [[5, 9, 17, 33, 60, 4, 8], [7, 3, 22], [50, 51, 52, 53], [90, 91, 92, 93, 94, 95, 2]]
MASKED = ("bert", "roberta")


def prefix(r, k):
    return (torch.arange(r) < k).double()


def replace(family, hf, gains):
    """Replace a plain model's matrices through torch.linalg.svd in float64. Returns what they were."""
    before = {at: read_weight(family, hf, *at) for at in gains}
    for at, make_gains in gains.items():
        U, S, Vh = torch.linalg.svd(before[at].double(), full_matrices=False)
        write_weight(family, hf, *at, ((U * (S * make_gains(len(S)))) @ Vh).to(before[at].dtype))
    return before


def edited(family, hf, gains):
    """A copy whose matrices are replaced."""
    out = copy.deepcopy(hf)
    replace(family, out, gains)
    return out


@contextlib.contextmanager
def replaced(family, hf, gains):
    """The matrices are replaced, and afterwards they are as they were: no copy of the model for each edit."""
    before = replace(family, hf, gains)
    yield
    for at, weight in before.items():
        write_weight(family, hf, *at, weight)


def reference(hf, prompts=PROMPTS):
    with torch.no_grad():
        return torch.stack([hf(torch.tensor([row])).logits[0, -1].log_softmax(-1) for row in prompts])


def ours(model, edit, padding, prompts=PROMPTS):
    reads = [(i, len(row) - 1) for i, row in enumerate(prompts)]
    out = torch.empty(len(prompts), model.d_vocab, dtype=torch.promote_types(model.dtype, torch.float32))
    with edit.on(model):
        for indices, logits in logits_at(model, prompts, reads, padding=padding):
            out[indices] = logits.log_softmax(-1)
    assert count_hooks(model) == 0
    return out


def masked_tokens(family):
    tokenizer = Tokens()
    if family in MASKED:
        tokenizer.mask_token, tokenizer.mask_token_id = "3", 3
    return tokenizer


_loaded: dict = {}


def loaded(family, dtype):
    if (family, dtype) not in _loaded:
        hf = make(family, dtype)
        _loaded[family, dtype] = hf, li.load_model((hf, masked_tokens(family)), device="cpu")
    return _loaded[family, dtype]


def whole(logits):
    """All of an engine's logits at once, as the model's own forward pass returns them: `[reads, d_vocab]`."""
    return torch.cat([block.clone() for _, block in logits.blocks()], dim=1)


def by_engine(engine, edits):
    """Log p under each edit at each read of an engine: `[edits, reads, d_vocab]`."""
    dtype = torch.promote_types(engine.model.dtype, torch.float32)
    out = torch.full((len(edits), len(engine.reads), engine.model.d_vocab), torch.nan, dtype=dtype)
    for which, reads, logits in engine.run(edits):
        for i, part in zip(which, whole(logits).log_softmax(-1).split(len(reads)), strict=True):
            assert out[i, reads].isnan().all(), "a read was yielded twice"
            out[i, reads] = part
    return out


def numbers_tokenizer():
    """A real tokenizer whose words are numbers, so that it can be saved with any random model."""
    words = {"<mask>" if i == 3 else str(i): i for i in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="0", pad_token="0", eos_token="1", mask_token="<mask>"
    )


def words_tokenizer(masked=False):
    """A real tokenizer with words for tokens; "." and all other texts can be written with it."""
    words = [
        "[unk]",
        "[mask]",
        "[end]",
        ".",
        *(f"w{'abcdefghij'[i // 10]}{'abcdefghij'[i % 10]}" for i in range(VOCAB - 4)),
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    more = {"mask_token": "[mask]"} if masked else {}
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[unk]", eos_token="[end]", pad_token="[end]", **more
    )


def build(family):
    """A tiny random model of a family, with words for tokens."""
    return li.load_model((make(family), words_tokenizer(family in MASKED)), device="cpu")
