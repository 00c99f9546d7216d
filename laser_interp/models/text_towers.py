"""The language model inside a vision-language checkpoint, without the weights that see or hear.

A checkpoint such as Gemma 3's or Qwen3-VL's holds a language model, an encoder of images, and a projector between them.
Of prompts without images, its answers are those of the language model alone. So only this is loaded, as a model of its
own class. Tests compare each kind with what the whole model computes from text.
"""

import re
from collections.abc import Iterable
from typing import Any

from laser_interp.models.library_internals import around_weights

# Language models that transformers has as a class of their own only under another name. Their rotary positions have
# three axes, which are equal for text, so that they are those of this class.
_SAME_MODEL = {"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3"}
# Where checkpoints store the language model -> where its own class stores it
RENAMED = {
    r"^language_model\.lm_head\.": "lm_head.",
    r"^language_model\.model\.": "model.",
    r"^model\.language_model\.": "model.",
    r"^model\.text_model\.": "model.",
}
_OF_LANGUAGE = re.compile(r"(model\.)?(language_model|text_model|layers|embed_tokens|norm)\.|lm_head\.")
# What changes a language model's logits, and the value with which it does not. Few whole models do the same.
_SCALES = {"logit_scale": 1.0, "logits_scaling": 1.0, "final_logit_softcapping": None}
_SCALED_BY_BOTH = ("gemma4_text",)
_FROM_WHOLE = ("pad_token_id", "bos_token_id", "eos_token_id")


def text_config(config: Any, where: str) -> Any:
    """The config of the language model inside, or None where the config is of a language model already.

    Raises:
        ValueError: transformers has no class for the language model alone.
    """
    inner = getattr(config, "text_config", None)
    if inner is None:
        return None
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    alone = inner
    if (kind := _SAME_MODEL.get(inner.model_type)) is not None:
        own = inner.to_dict()
        rope = {k: v for k, v in (own.get("rope_parameters") or {}).items() if not k.startswith("mrope_")}
        known = CONFIG_MAPPING[kind]().to_dict()
        alone = CONFIG_MAPPING[kind](**{name: own[name] for name in known if name in own and name != "model_type"})
        alone.rope_parameters = rope
    if type(alone) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"{where!r} is a {config.model_type} model for text and images, and transformers has no class for its "
            f"language model alone ({inner.model_type}): this kind is not supported"
        )
    if inner.model_type not in _SCALED_BY_BOTH and (
        scaled := [n for n, same in _SCALES.items() if getattr(alone, n, None) not in (None, same)]
    ):
        raise ValueError(
            f"the language model of {where!r} changes its logits by {scaled[0]}, and transformers' {config.model_type} "
            "model for text and images does not: it cannot be told which of their answers is meant"
        )
    for name in _FROM_WHOLE:
        if getattr(alone, name, None) is None:
            setattr(alone, name, getattr(config, name, None))
    if "tie_word_embeddings" in config.to_dict():
        alone.tie_word_embeddings = config.tie_word_embeddings
    if (quantised := getattr(config, "quantization_config", None)) is not None:
        alone.quantization_config = quantised
    of_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(alone)]
    alone.architectures = [of_class.__name__]
    return alone


def left_out(names: Iterable[str]) -> list[str]:
    """Of the weights that the language model does not have, those that belong to other parts of the checkpoint."""
    return sorted(name for name in names if not _OF_LANGUAGE.match(name))


def _renamed(name: str) -> str:
    """A weight's name in the language model alone."""
    for stored, own in RENAMED.items():
        name = re.sub(stored, own, name)
    return name


def text_model(hf_model: Any, name: str) -> Any:
    """The language model inside a vision-language model in memory, around the same weights; others as they are."""
    config = text_config(hf_model.config, name)
    if config is None:
        return hf_model
    from transformers import AutoModelForCausalLM

    state = hf_model.state_dict()
    others = set(left_out(state))
    return around_weights(
        lambda: AutoModelForCausalLM.from_config(config, dtype=hf_model.dtype),
        {_renamed(at): tensor for at, tensor in state.items() if at not in others},
        hf_model.device,
    )
