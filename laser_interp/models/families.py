"""The model families that are tested, and mixtures of experts, which are refused although they would load."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """A family that is compared with independently edited transformers models, at every layer and matrix.

    Attributes:
        name: as its users call it.
        transformers_class: the class of its checkpoints.
        note: what is different about it.
    """

    name: str
    transformers_class: str
    note: str = ""


FAMILIES = (
    Family("GPT-2", "GPT2LMHeadModel"),
    Family("GPT-J", "GPTJForCausalLM"),
    Family("GPT-NeoX, Pythia", "GPTNeoXForCausalLM"),
    Family("GPT-Neo", "GPTNeoForCausalLM"),
    Family("Llama, SmolLM 1 and 2", "LlamaForCausalLM"),
    Family("Mistral", "MistralForCausalLM"),
    Family("Qwen 2", "Qwen2ForCausalLM"),
    Family("Qwen 3", "Qwen3ForCausalLM", "also with tied embeddings"),
    Family("SmolLM3", "SmolLM3ForCausalLM"),
    Family("OLMo", "OlmoForCausalLM"),
    Family("OLMo 2", "Olmo2ForCausalLM"),
    Family("Phi", "PhiForCausalLM"),
    Family("Phi-3", "Phi3ForCausalLM"),
    Family("Gemma 2", "Gemma2ForCausalLM"),
    Family("Gemma 3 (text)", "Gemma3ForCausalLM", "also with one key-value head"),
    Family("OPT", "OPTForCausalLM"),
    Family("GPT-1", "OpenAIGPTLMHeadModel", "no left padding, no generation"),
    Family("BERT", "BertForMaskedLM", "answers at the mask"),
    Family("RoBERTa", "RobertaForMaskedLM", "answers at the mask"),
)
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def is_tested(architecture: str) -> bool:
    """Whether a transformers class is in the table."""
    return architecture in {family.transformers_class for family in FAMILIES}


def refuse_experts(config: Any, name: str) -> None:
    """Refuse a mixture of experts: a layer has many MLPs, stored as one block, and a router chooses among them.

    Raises:
        ValueError: the config names more than one expert.
    """
    for key in _EXPERTS:
        n = getattr(config, key, None)
        if isinstance(n, int) and n > 1:
            raise ValueError(
                f"{name!r} is a mixture of {n} experts: a layer has {n} MLP matrices of each kind, and it is not "
                "defined which of them LASER would truncate; take a dense model"
            )
