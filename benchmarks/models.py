"""Random models of real shapes, and facts to ask them."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf

import laser_interp as li

_TWELVE: dict[str, Any] = {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768}

# name -> (class, config). Layers, widths and vocabularies are those of the named models. "gptj" and "llama" are
# different: they have their family's block at GPT-2's size. "llama3-0.5b" has the vocabulary of Llama 3 at the size of
# half a billion weights, and "gemma3-1b" is Gemma 3 1B. "gptj-6b" is the whole GPT-J, for a GPU, and
# "gpt2-tiny" is for testing the benchmark itself.
SHAPES: dict[str, tuple[Any, Any]] = {
    "gpt2-small": (tf.GPT2LMHeadModel, lambda: tf.GPT2Config()),
    "pythia-160m": (
        tf.GPTNeoXForCausalLM,
        lambda: tf.GPTNeoXConfig(**_TWELVE, vocab_size=50304, intermediate_size=3072, max_position_embeddings=2048),
    ),
    "gptj": (
        tf.GPTJForCausalLM,
        lambda: tf.GPTJConfig(vocab_size=50400, n_embd=768, n_layer=12, n_head=12, rotary_dim=64, n_positions=2048),
    ),
    "llama": (
        tf.LlamaForCausalLM,
        lambda: tf.LlamaConfig(**_TWELVE, vocab_size=32000, intermediate_size=2048, max_position_embeddings=2048),
    ),
    "llama3-0.5b": (
        tf.LlamaForCausalLM,
        lambda: tf.LlamaConfig(
            vocab_size=128256,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
        ),
    ),
    "gemma3-1b": (
        tf.Gemma3ForCausalLM,
        lambda: tf.Gemma3TextConfig(
            vocab_size=262144,
            hidden_size=1152,
            intermediate_size=6912,
            num_hidden_layers=26,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=256,
        ),
    ),
    "gpt2-tiny": (
        tf.GPT2LMHeadModel,
        lambda: tf.GPT2Config(vocab_size=500, n_embd=128, n_layer=4, n_head=4, n_positions=64),
    ),
    "gptj-6b": (tf.GPTJForCausalLM, lambda: tf.GPTJConfig(tie_word_embeddings=False)),
}


class Words:
    """A tokenizer that reads numbers as token ids; speed depends on shapes and not on the text."""

    unk_token_id = mask_token_id = mask_token = None
    pad_token_id = eos_token_id = 0

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, text: str | list[str], add_special_tokens: bool = True) -> dict[str, Any]:
        if isinstance(text, list):
            return {"input_ids": [self(one)["input_ids"] for one in text]}
        return {"input_ids": [int(word) % self.n for word in text.split()]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, map(int, ids)))

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return list(map(str, ids))


def make(name: str, device: str, dtype: torch.dtype, halved: str = "") -> tuple[Any, Any]:
    """A random transformers model and a tokenizer; the singular values fall off as those of trained weights do.

    Args:
        halved: "layers" or "vocabulary": the model has half as many.
    """
    cls, make_config = SHAPES[name]
    config = make_config()
    if halved == "layers":
        config.num_hidden_layers //= 2
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[: config.num_hidden_layers]
    elif halved == "vocabulary":
        config.vocab_size //= 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with torch.device(device):
            hf = cls._from_config(config, dtype=dtype).eval()
        for parameter in hf.parameters():
            parameter.data.normal_(0, 0.02 if parameter.ndim > 1 else 0.2)
            if parameter.ndim == 2:  # ever smaller columns make the singular values fall off
                parameter.data *= torch.linspace(2, 0.2, parameter.shape[1], device=parameter.device).to(dtype)
    return hf, Words(hf.config.vocab_size)


def spread_layers(n: int) -> list[int]:
    """Four of n layers, spread evenly; all of them where there are four or fewer."""
    return sorted({round(n * share - 0.5) for share in (0.125, 0.375, 0.625, 0.875)})


def facts(n: int, vocabulary: int, seed: int = 0, tokens: int = 10) -> li.FactSet:
    """Prompts of random tokens, at most so many and at least half as many, with answers of one token."""
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> str:
        return " ".join(map(str, torch.randint(vocabulary, (count,), generator=generator).tolist()))

    lengths = torch.randint(tokens // 2, tokens + 1, (n,), generator=generator).tolist()
    rows = [
        {"fact_id": f"f{i}", "prompt": words(length), "subject": f"s{i}", "relation": "r", "object": words(1)}
        for i, length in enumerate(lengths)
    ]
    return li.load_facts(rows)
