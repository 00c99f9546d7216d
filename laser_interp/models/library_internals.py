"""All uses of undocumented parts of TransformerLens and transformers, in one place.

`tests/project/test_structure.py` looks for each of them, and names what a new release lacks, before a result is wrong.
"""

import copy
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import gelu

# Classes whose code is that of another class, which TransformerLens knows
_SAME_CODE = {"XLMRobertaForMaskedLM": "RobertaForMaskedLM", "CamembertForMaskedLM": "RobertaForMaskedLM"}


def build_bridge(hf_model: Any) -> Any:
    """The TransformerLens bridge of a loaded transformers model, which it changes for good.

    Raises:
        ValueError: TransformerLens does not support the architecture.
    """
    os.environ.setdefault("WANDB_MODE", "disabled")  # TransformerLens imports it; nothing here logs to it
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    try:
        architecture = _SAME_CODE.get(type(hf_model).__name__, type(hf_model).__name__)
        inner = hf_model.base_model
        without_rotation = getattr(inner, "rotary_emb", hf_model) is None
        bridge = build_bridge_from_module(hf_model, architecture, hf_config=hf_model.config)
        if without_rotation:  # as Granite 4's hybrids, for which TransformerLens puts a part that it cannot run
            inner.rotary_emb = None
        return bridge
    except (ValueError, KeyError, AttributeError, NotImplementedError, RuntimeError, AssertionError) as error:
        raise ValueError(first_line(error)) from error


def with_bridges_attention(hf_model: Any) -> Any:
    """The model with transformers' eager attention where it has ALiBi, as its bridge computes it.

    Its two attentions differ by .1 nats and more; those of other models agree up to rounding. A model chooses its
    attention when it is made, so it is made anew around the same weights.
    """
    config = hf_model.config
    if not getattr(config, "alibi", False) or config._attn_implementation == "eager":
        return hf_model
    return around_weights(
        lambda: type(hf_model)._from_config(config, attn_implementation="eager", dtype=hf_model.dtype),
        hf_model.state_dict(),
        hf_model.device,
    )


def around_weights(make: Callable[[], Any], weights: Mapping[str, Tensor], device: Any) -> Any:
    """A transformers model that is made anew around tensors that exist."""
    with without_initialisation():
        hf_model = make()
    hf_model.load_state_dict(weights, assign=True)
    hf_model.tie_weights()
    return hf_model.to(device)


def is_bridge(source: Any) -> bool:
    """Whether an object is a bridge of TransformerLens. If TransformerLens is not imported yet, it cannot be one."""
    loaded = sys.modules.get("transformer_lens.model_bridge")
    return loaded is not None and isinstance(source, loaded.TransformerBridge)


def persistent_buffers(hf_model: Any) -> dict[str, Tensor]:
    """The tensors that a checkpoint stores although they are no parameters, by name."""
    stored = set(hf_model.state_dict())
    return {name: buffer for name, buffer in hf_model.named_buffers() if name in stored}


def one_tensor_twice(hf_model: Any) -> list[str]:
    """Names of parameters that are one tensor although the model's class does not tie them; none where there are no
    such names."""
    tied = set(getattr(hf_model, "all_tied_weights_keys", None) or ())
    names: dict[int, list[str]] = {}
    for name, parameter in hf_model.named_parameters(remove_duplicate=False):
        if name not in tied:
            names.setdefault(id(parameter), []).append(name)
    parts = (hf_model.get_input_embeddings(), hf_model.get_output_embeddings())
    embeddings = {id(getattr(part, "weight", None)) for part in parts}
    return next((same for key, same in names.items() if len(same) > 1 and key not in embeddings), [])


def tensors_of_bridge(bridge: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A bridge's parameters, and its persistent buffers, by their names in a checkpoint.

    Bridging renames them, and copies parts of fused parameters. The new names are found by bridging an empty model of
    the same class, which takes as much memory as the model for a moment.

    Raises:
        ValueError: the weights were folded into each other, or the bridge was not built as `build_bridge` does.
    """
    if bridge.compatibility_mode:
        raise ValueError(
            "the bridge is in compatibility mode, which folds norms into weights: give one on which "
            "enable_compatibility_mode was not called"
        )
    bridged = bridge.original_model
    with without_initialisation():
        empty = type(bridged)(bridged.config)
    empty.tie_weights()
    parameters, buffers = dict(empty.named_parameters()), persistent_buffers(empty)
    names = {id(tensor): name for name, tensor in (parameters | buffers).items()}
    build_bridge(empty)
    renamed = {names[id(tensor)]: name for name, tensor in _named_tensors(empty) if id(tensor) in names}
    has = dict(_named_tensors(bridged))
    missing = [name for name in names.values() if renamed.get(name) not in has]
    if missing:
        raise ValueError(
            f"cannot find the parameter {missing[0]!r} in the bridge: load the model with li.load_model instead"
        )
    return {name: has[renamed[name]] for name in parameters}, {name: has[renamed[name]] for name in buffers}


def _named_tensors(module: Any) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def use_tokenizer(bridge: Any, tokenizer: Any) -> None:
    """Make a bridge tokenise as the tokenizer's own call does. It gets a copy of the tokenizer that can pad."""
    tokenizer = copy.deepcopy(tokenizer)
    if getattr(tokenizer, "pad_token", "") is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    begins = list(tokenizer("")["input_ids"][:1]) == [getattr(tokenizer, "bos_token_id", None)]
    bridge.tokenizer = tokenizer
    bridge.cfg.default_prepend_bos = bridge.cfg.tokenizer_prepends_bos = begins


def first_line(error: BaseException) -> str:
    """The beginning of a library's message, which often goes on with pages of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]) or type(error).__name__


def is_conv1d(linear: Any) -> bool:
    """Whether a linear map stores its weight as `[d_in, d_out]`, and not transposed."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(linear, Conv1D)


_OWN = "_of_laser_interp"


def mark_own(hook: Callable[..., Any]) -> None:
    """Tell a hook of this package from those that it does not know."""
    setattr(hook, _OWN, True)


def why_not_linear(module: Any) -> str | None:
    """Why a module is not exactly a linear map of its weight and bias; None where it is one, as far as can be seen.

    Adapters (peft) and quantised or parametrised weights are not, and a hook of torch changes the output.
    """
    kind = f"{type(module).__module__}.{type(module).__name__}"
    if kind.startswith("peft."):
        return f"has an adapter ({kind}), which an edit would drop: merge it first, by model.merge_and_unload() of peft"
    if kind.startswith("torch.ao.") or getattr(module, "parametrizations", None):
        return f"has a quantised or parametrised weight ({kind}): load the model in float32, bfloat16 or float16"
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    if not all(hasattr(hook, _OWN) for hook in hooks):
        return "has a forward hook of torch, which an edit would drop: remove it, or add it to the bridge's own hooks"
    return None


def refuse_attached(hf_model: Any, name: str) -> None:
    """Refuse a model in which adapters, quantised maps or hooks stand in the place of its linear maps.

    Raises:
        ValueError: the message names the module and says what to do.
    """
    from torch import nn

    if not isinstance(hf_model, nn.Module) or not hasattr(hf_model, "get_input_embeddings"):
        raise ValueError(
            f"{name!r} is a {type(hf_model).__name__}, not a language model of transformers: give the model inside it"
        )
    if type(hf_model).__module__.startswith("peft."):
        raise ValueError(
            f"{name!r} is a model with an adapter of peft: merge it first, by model.merge_and_unload(), and give the "
            "result"
        )
    for at, module in hf_model.named_modules():
        odd = type(module).__module__.startswith(("peft.", "torch.ao."))
        if (odd or isinstance(module, nn.Linear) or is_conv1d(module)) and (why := why_not_linear(module)):
            raise ValueError(f"{at} of {name!r} {why}")


def without_initialisation() -> AbstractContextManager[Any]:
    """While open, new transformers modules do not draw their weights."""
    from transformers.initialization import no_init_weights

    return no_init_weights()


def swap_forward(module: Any, forward: Callable[..., Any]) -> Callable[[], None]:
    """Replace what a module computes. Returns a function that restores it.

    The instance's own `__dict__` is written, because a bridge's `__setattr__` passes some names on to what it wraps.
    """
    own = module.__dict__
    before = {"forward": own["forward"]} if "forward" in own else {}
    own["forward"] = forward

    def undo() -> None:
        own.pop("forward")
        own.update(before)

    return undo


def one_step_modules(block: Any) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Modules of a block that compute in many steps, each with a function that computes the same in one step.

    For a norm of the bridge this is the checkpoint's own norm. For GPT-2's GELU it is torch's.
    """
    from transformer_lens.model_bridge.generalized_components.normalization import NormalizationBridge
    from transformers.activations import NewGELUActivation

    for module in block.submodules.values():
        if isinstance(module, NormalizationBridge):
            yield module, _norm_alone(module.original_component)
    for module in block.original_component.modules():
        if isinstance(module, NewGELUActivation):
            yield module, partial(gelu, approximate="tanh")


def _norm_alone(norm: Any) -> Callable[..., Tensor]:
    return lambda hidden_states, **kwargs: norm(hidden_states)


@contextmanager
def generating_as(hf_model: Any, **options: Any) -> Iterator[Any]:
    """The options as a generation config of their own. What a checkpoint's own config says, such as a penalty for
    repetition, is left out while the block runs: transformers would fill every option that is not given from it. Only
    the tokens at which a text ends are the checkpoint's.
    """
    from transformers import GenerationConfig

    own = hf_model.generation_config
    ends = getattr(own, "eos_token_id", None)
    ends = hf_model.config.eos_token_id if ends is None else ends
    config = GenerationConfig(eos_token_id=[ends] if isinstance(ends, int) else ends, **options)
    hf_model.generation_config = GenerationConfig()
    try:
        yield config
    finally:
        hf_model.generation_config = own


@contextmanager
def gguf_parsed_once(path: Path) -> Iterator[Any]:
    """Let transformers use one reader of a GGUF file, which is given here, while it loads from that file.

    transformers opens the file three times, for config, tokenizer and weights, and gguf parses each word of the
    vocabulary anew. It also builds gguf's table of tensor names once for each module. The reader cuts words out of a
    plain array here: a slice of a memory map takes three times as long.
    """
    import gguf

    known: Any = gguf  # types cannot describe that its functions are exchanged
    reader_class, name_map = known.GGUFReader, known.get_tensor_name_map

    class Reader(reader_class):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    reader = Reader(path)

    def reader_of(file: Any, *args: Any, **kwargs: Any) -> Any:
        return reader if Path(file) == path else reader_class(file, *args, **kwargs)

    known.GGUFReader, known.get_tensor_name_map = reader_of, cache(name_map)
    try:
        yield reader
    finally:
        known.GGUFReader, known.get_tensor_name_map = reader_class, name_map
