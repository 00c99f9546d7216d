"""A saved model as transformers alone loads it, to be compared with what this package computes."""

from pathlib import Path
from typing import Any

from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.weights import is_fused


def load_plain(model: LoadedModel, folder: str | Path) -> Any:
    """The transformers model in a folder that `Model.save_checkpoint` wrote, ready to be run."""
    hf_model = type(model.bridge.original_model).from_pretrained(
        folder, dtype=model.dtype, attn_implementation=_attention(model), local_files_only=True
    )
    return hf_model.to(model.device).eval().requires_grad_(False)


def _attention(model: LoadedModel) -> str:
    """Which of transformers' attentions has the precision of the model's own.

    Eager's softmax is in fp32 whatever the model's dtype, and so is TransformerLens's; but where it splits a fused q, k
    and v it computes all in the model's dtype, as sdpa does.
    """
    if getattr(model.bridge.original_model.config, "alibi", False):
        return "eager"  # see `with_bridges_attention`
    with_queries = [layer for layer in range(model.n_layers) if "q" in model.matrices_of(layer)]
    split = bool(with_queries) and is_fused(model, with_queries[0], "q")
    fused = split and getattr(model.bridge.original_model, "_supports_sdpa", False)
    return "sdpa" if fused else "eager"
