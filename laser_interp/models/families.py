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
    Family("RoBERTa, XLM-R, CamemBERT", "RobertaForMaskedLM", "answers at the mask"),
    # In fp32 only: tests/models/test_more_families.py
    Family("Qwen 3.5 (text)", "Qwen3_5ForCausalLM", "hybrid: linear attention"),
    Family("OLMo Hybrid", "OlmoHybridForCausalLM", "hybrid: linear attention"),
    Family("LFM2", "Lfm2ForCausalLM", "hybrid: convolutions"),
    Family("Jamba, dense", "JambaForCausalLM", "hybrid: state spaces"),
    Family("Bamba", "BambaForCausalLM", "hybrid: state spaces; scored by full passes"),
    Family("Granite 4, dense", "GraniteMoeHybridForCausalLM", "also hybrids: state spaces"),
    Family("Falcon-H1", "FalconH1ForCausalLM", "state spaces beside attention, which are not edited"),
    Family("Mamba", "MambaForCausalLM", "state spaces alone"),
    Family("Mamba 2", "Mamba2ForCausalLM", "state spaces alone"),
    Family("Llama 4 (text), dense", "Llama4ForCausalLM"),
    Family("DeepSeek-V3, dense", "DeepseekV3ForCausalLM", "latent attention: q_a_proj, kv_b_proj, …"),
    Family("Gemma 4 (text)", "Gemma4ForCausalLM", "with shared keys, scored by full passes"),
    Family("Bloom", "BloomForCausalLM", "scored by full passes"),
    Family("MPT", "MptForCausalLM", "scored by full passes"),
    Family("Gemma 1", "GemmaForCausalLM"),
    Family("OLMo 3", "Olmo3ForCausalLM"),
    Family("Ministral 3", "Ministral3ForCausalLM"),
    Family("GLM", "GlmForCausalLM"),
    Family("GLM 4", "Glm4ForCausalLM"),
    Family("Granite", "GraniteForCausalLM"),
    Family("Cohere", "CohereForCausalLM"),
    Family("Cohere 2", "Cohere2ForCausalLM"),
    Family("Exaone 4", "Exaone4ForCausalLM"),
    Family("Ernie 4.5", "Ernie4_5ForCausalLM"),
    Family("Seed-OSS", "SeedOssForCausalLM"),
    Family("Hunyuan, dense", "HunYuanDenseV1ForCausalLM"),
    Family("StableLM", "StableLmForCausalLM"),
    Family("Nemotron", "NemotronForCausalLM"),
    Family("Starcoder 2", "Starcoder2ForCausalLM"),
    Family("GPT-BigCode, SantaCoder", "GPTBigCodeForCausalLM"),
    Family("Arcee", "ArceeForCausalLM"),
    Family("XGLM", "XGLMForCausalLM"),
    Family("ModernBERT decoder", "ModernBertDecoderForCausalLM", "in holds the gate too"),
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
