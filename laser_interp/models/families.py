"""The model families that are tested. A mixture of experts that is not among them is refused, although it may load."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """A family that is compared with independently edited transformers models, at every layer and matrix.

    Attributes:
        name: as its users call it.
        transformers_class: the class of its checkpoints.
        note: what is different about it.
        experts: whether its mixtures of experts are supported.
    """

    name: str
    transformers_class: str
    note: str = ""
    experts: bool = False


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
    Family("Jamba", "JambaForCausalLM", "hybrid: state spaces; experts", experts=True),
    Family("Bamba", "BambaForCausalLM", "hybrid: state spaces; scored by full passes"),
    Family("Granite 4, dense", "GraniteMoeHybridForCausalLM", "also hybrids: state spaces"),
    Family("Falcon-H1", "FalconH1ForCausalLM", "state spaces beside attention, which are not edited"),
    Family("Mamba", "MambaForCausalLM", "state spaces alone"),
    Family("Mamba 2", "Mamba2ForCausalLM", "state spaces alone"),
    Family("Llama 4 (text), dense", "Llama4ForCausalLM"),
    Family("DeepSeek-V3", "DeepseekV3ForCausalLM", "latent attention: q_a_proj, kv_b_proj, …; experts", experts=True),
    Family("DeepSeek-V2", "DeepseekV2ForCausalLM", "latent attention; experts", experts=True),
    Family("Mixtral", "MixtralForCausalLM", "experts", experts=True),
    Family("Qwen 2 MoE", "Qwen2MoeForCausalLM", "experts", experts=True),
    Family("Qwen 3 MoE", "Qwen3MoeForCausalLM", "experts", experts=True),
    Family("Qwen 3 Next", "Qwen3NextForCausalLM", "hybrid: linear attention; experts", experts=True),
    Family("Qwen 3.5 MoE (text)", "Qwen3_5MoeForCausalLM", "hybrid: linear attention; experts", experts=True),
    Family("OLMoE", "OlmoeForCausalLM", "experts", experts=True),
    Family("FlexOlmo", "FlexOlmoForCausalLM", "experts", experts=True),
    Family("gpt-oss", "GptOssForCausalLM", "experts with biases", experts=True),
    Family("GLM 4 MoE", "Glm4MoeForCausalLM", "experts", experts=True),
    Family("Ernie 4.5 MoE", "Ernie4_5_MoeForCausalLM", "experts", experts=True),
    Family("LFM2 MoE", "Lfm2MoeForCausalLM", "hybrid: convolutions; experts", experts=True),
    Family("Granite MoE", "GraniteMoeForCausalLM", "experts", experts=True),
    Family("MiniMax M2", "MiniMaxM2ForCausalLM", "experts", experts=True),
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
    """Refuse a mixture of experts of a family in which these are not tested: it may hold them in another form.

    Raises:
        ValueError: the config names more than one expert.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

    of_type = CLASSES.get(getattr(config, "model_type", None))
    if any(family.experts and family.transformers_class == of_type for family in FAMILIES):
        return
    for key in _EXPERTS:
        n = getattr(config, key, None)
        if isinstance(n, int) and n > 1:
            raise ValueError(
                f"{name!r} is a mixture of {n} experts of a family whose experts are not supported; `laser-interp "
                "models` lists those that are"
            )
