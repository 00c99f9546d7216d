"""Loading a model: by shipped name, from a folder, from the hub, or from an object in memory."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch

from laser_interp.choices import names_with_suggestion
from laser_interp.facts.shipped import SHIPPED, shipped_dir
from laser_interp.models.complete_weights import check_complete, check_finite, check_readable, check_stored, tensors_in
from laser_interp.models.families import refuse_experts
from laser_interp.models.gguf_files import find_gguf, read_gguf, read_gguf_tokenizer
from laser_interp.models.library_internals import (
    build_bridge,
    first_line,
    is_bridge,
    one_tensor_twice,
    persistent_buffers,
    refuse_attached,
    tensors_of_bridge,
    use_tokenizer,
    with_bridges_attention,
)
from laser_interp.models.load_check import check_loaded, find_how_it_runs, logits_before
from laser_interp.models.model import Model
from laser_interp.models.named_models import NAMED_MODELS, packaged_file
from laser_interp.models.quantised import check_scales, dequantising, refuse_quantised
from laser_interp.models.saved_checkpoint import GENERIC_WORDS
from laser_interp.models.text_towers import RENAMED, left_out, text_config, text_model
from laser_interp.storage.checksums import CHECKSUMS, check_folder


@torch.inference_mode(False)  # weights of an inference mode could never have gradients
def load_model(
    source: Any,
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: torch.dtype | str = "auto",
    device_map: Any = None,
    token: str | bool | None = None,
    trust_remote_code: bool = False,
    copy_object: bool = True,
    self_check: bool = True,
) -> Model:
    """Load a causal or masked language model.

    Args:
        source: "organism" or "organism-control" (shipped), "smollm2" (see `laser_interp.models.named_models`), a
            local folder in the Hugging Face format, a GGUF file, or a hub id. A model in memory can be given as
            `(hf_model, tokenizer)`, as a transformers model with `tokenizer=`, or as a bridge of TransformerLens, which
            is not copied. `HF_HOME` and `HF_HUB_OFFLINE` are respected; without a network the local cache is used.
        tokenizer: used instead of the one beside the weights.
        revision: branch, tag or commit of a hub id.
        device: "auto" (a CUDA device if there is one), "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" keeps the dtype of the checkpoint, or of the object in memory; a GGUF file is read as float32.
        device_map: as transformers takes it, for models larger than one device, from a folder or the hub only. `device`
            is then not used.
        token: as transformers takes it, for gated repositories.
        trust_remote_code: run code that comes with the checkpoint. If False, no code of a checkpoint is ever
            executed (weights are safetensors, or torch files read with `weights_only=True`).
        copy_object: wrapping changes a transformers model for good, so a model in memory is copied first. False
            saves the memory of the copy; the original must then not be used any more.
        self_check: compare the loaded model with what transformers computes, on two short prompts; see
            `laser_interp.models.load_check`. False trusts it unseen.

    Raises:
        FileNotFoundError: there is no such folder, and no such model on the hub or in its local cache.
        ValueError: an unsupported architecture; weights that are quantised, missing, unexpected, damaged or not
            finite; an adapter that is not merged; no tokenizer; an unknown dtype or device; or a model that does not
            compute what transformers does.

    Example:
        >>> li.load_model("organism")
        >>> li.load_model("EleutherAI/pythia-70m", dtype="float32")  # doctest: +SKIP
    """
    dtype = _resolve_dtype(dtype)
    _check_device(device)
    if not isinstance(source, str | Path):
        _refuse("a model in memory", "folders", device_map=device_map)
        _refuse("a model in memory", "hub ids", revision=revision)
    if is_bridge(source):
        return _use_bridge(source, tokenizer, device, dtype, self_check)
    if isinstance(source, torch.nn.Module):
        source = source, tokenizer
    if not isinstance(source, str | Path | tuple) or (isinstance(source, tuple) and len(source) != 2):
        raise ValueError(f"source is {source!r}: expected a name, a folder, a hub id, or (hf_model, tokenizer)")
    if tokenizer is not None and not (callable(tokenizer) and hasattr(tokenizer, "decode")):
        raise ValueError(f"tokenizer is {tokenizer!r}: expected one of transformers, as li.load_tokenizer gives it")
    if revision == "":
        raise ValueError("revision is empty: expected a branch, tag or commit, or nothing")
    if isinstance(source, tuple):
        hf_model, tokenizer = source[0], source[1] if tokenizer is None else tokenizer
        if isinstance(source[1], torch.nn.Module):
            raise ValueError("the tokenizer is given before the model: expected (hf_model, tokenizer)")
        name = type(hf_model).__name__
        refuse_attached(hf_model, name)
        refuse_quantised(hf_model.config, name)
        whole, hf_model = hf_model, text_model(hf_model, name)
        if copy_object:
            hf_model = copy.deepcopy(hf_model)
        if device != "auto":
            hf_model = hf_model.to(device)
        if dtype != "auto":
            hf_model = hf_model.to(dtype)
        model = _wrap(hf_model, tokenizer, name, self_check)
        model.left_out = () if type(whole) is type(hf_model) else tuple(left_out(whole.state_dict()))
        return model

    if str(source) in NAMED_MODELS:
        how = {"tokenizer": tokenizer, "device": device, "dtype": dtype, "revision": revision, "token": token}
        return _load_named(str(source), **how, device_map=device_map, self_check=self_check)
    shipped = str(source) in SHIPPED
    if not shipped and (gguf := find_gguf(Path(source).expanduser())) is not None:
        _refuse("a GGUF file", "folders", device_map=device_map)
        _refuse("a GGUF file", "hub ids", revision=revision)
        return _load_gguf(gguf, tokenizer, device, dtype, self_check)
    path = shipped_dir(str(source)) if shipped else Path(source).expanduser()
    local = path.is_dir()
    if local:
        _refuse("a model that comes with the package" if shipped else "a folder", "hub ids", revision=revision)
    if not local and (str(source).startswith((".", "/", "~")) or str(source).count("/") > 1 or path.exists()):
        raise FileNotFoundError(
            f"no model folder {str(source)!r}: expected a folder with config.json and weights, a hub id, "
            f"or {names_with_suggestion((*SHIPPED, *NAMED_MODELS), source)}"
        )
    where = str(path) if local else str(source)
    reachable = local or _hub_is_reachable()
    options: dict[str, Any] = {
        "revision": revision,
        "token": token,
        "trust_remote_code": trust_remote_code,
        "local_files_only": local or not reachable,
    }
    if local:
        check_readable(path)
        check_folder(path, f"get it again, or if you changed it on purpose, remove {CHECKSUMS}")
    hf_model, eight_bits, others = _read_checkpoint(where, dtype, device_map, options, reachable)
    chosen = _read_tokenizer(where, options) if tokenizer is None else tokenizer
    if device_map is None:
        hf_model = hf_model.to(_resolve_device(device))
    generic_words = _read_generic_words(path) if local else None
    model = _wrap(hf_model, chosen, path.resolve().name if local else str(source), self_check)
    model.revision = getattr(hf_model.config, "_commit_hash", None) or revision
    model.generic_words, model.quantisation, model.left_out = generic_words, eight_bits, tuple(others)
    if tokenizer is None:  # another process could not load a tokenizer that was given
        model.source = {
            "source": str(path.resolve()) if local and not shipped else str(source),
            "revision": model.revision,
            "dtype": dtype,
            "token": token,
            "trust_remote_code": trust_remote_code,
        }
    return model


def _refuse(source: str, meant: str, **options: Any) -> None:
    """Refuse options that this kind of source does not have."""
    if asked := [name for name, value in options.items() if value is not None]:
        raise ValueError(f"{' and '.join(asked)} cannot be used with {source}: expected only with {meant}")


def _load_named(name: str, **options: Any) -> Model:
    """A model by its short name: from its package, else from the hub or its cache.

    Raises:
        FileNotFoundError: neither is there; the message says how to get it.
    """
    named = NAMED_MODELS[name]
    path = packaged_file(named)
    try:
        return load_model(named.hub if path is None else path, **options)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{name!r} is neither installed nor on a hub that can be reached ({named.hub}): {named.install}"
        ) from error


def _load_gguf(path: Path, tokenizer: Any, device: str, dtype: torch.dtype | str, self_check: bool = True) -> Model:
    hf_model, own_tokenizer, quantisation = read_gguf(path, dtype)
    hf_model = hf_model.to(_resolve_device(device))
    chosen = own_tokenizer if tokenizer is None else tokenizer
    model = _wrap(hf_model, chosen, path.stem, self_check)
    model.quantisation = quantisation
    if tokenizer is None:
        model.source = {"source": str(path.resolve()), "dtype": dtype}
    return model


def _use_bridge(bridge: Any, tokenizer: Any, device: str, dtype: torch.dtype | str, self_check: bool) -> Model:
    """A bridge that the caller made; like a model that is given away, it is put in evaluation mode.

    How it was before it was wrapped is not known, so it is compared with itself, alone and in a batch.
    """
    if device != "auto" or dtype != "auto":
        raise ValueError("device and dtype are the bridge's own: leave them out, and move it first with bridge.to(...)")
    name = Path(str(bridge.cfg.model_name)).name
    if tokenizer is None:  # the checkpoint's own: TransformerLens makes some put a token before every text
        where = getattr(bridge.tokenizer, "name_or_path", "")
        if not where:
            raise ValueError(f"no tokenizer for the bridge of {name!r}: pass load_model(bridge, tokenizer=...)")
        tokenizer = load_tokenizer(where)
    refuse_quantised(bridge.original_model.config, name)
    refuse_experts(bridge.original_model.config, name)
    bridge.eval()
    bridge.original_model.requires_grad_(False)
    parameters, buffers = tensors_of_bridge(bridge)
    model = Model(bridge, tokenizer, name=name, parameters=parameters, buffers=buffers)
    check_finite(name, parameters)
    (check_loaded if self_check else find_how_it_runs)(model)
    return model


def _wrap(hf_model: Any, tokenizer: Any, name: str, self_check: bool) -> Model:
    """The model in its bridge, compared with itself before it was in it."""
    if tokenizer is None:
        raise ValueError(f"no tokenizer for {name!r}: pass load_model(hf_model, tokenizer=...)")
    refuse_attached(hf_model, name)
    refuse_experts(hf_model.config, name)
    hf_model = with_bridges_attention(hf_model)
    hf_model.eval()
    hf_model.requires_grad_(False)
    hf_model.config.return_dict = True  # as everything here reads it
    if hf_model.dtype == torch.float64 and hasattr(hf_model, "set_experts_implementation"):
        hf_model.set_experts_implementation("eager")  # the product in groups takes no float64
    parameters, buffers = dict(hf_model.named_parameters()), persistent_buffers(hf_model)
    if any("_original_component." in at for at in parameters):
        raise ValueError(
            f"{name!r} is inside a bridge of TransformerLens already, which changed it for good: give the bridge "
            "(model.bridge), or load the checkpoint again"
        )
    if shared := one_tensor_twice(hf_model):
        raise ValueError(
            f"{' and '.join(shared)} of {name!r} are one tensor in memory, which an edit of one of them would not tell "
            "apart: give each its own copy"
        )
    if away := [at for at, parameter in parameters.items() if parameter.device.type == "meta"]:
        raise ValueError(
            f"{len(away)} weights of {name!r} are not in memory ({away[0]}): device_map put them on disk, where edits "
            "cannot read them; give a device_map without disk"
        )
    check_finite(name, parameters)
    before = None
    if self_check:
        before = logits_before(hf_model, name, masked=type(hf_model).__name__.endswith("ForMaskedLM"))
    try:
        bridge = build_bridge(hf_model)
    except ValueError as error:
        raise ValueError(
            f"TransformerLens does not support the architecture {type(hf_model).__name__} of {name!r} ({error}); "
            "docs/models.md lists the families that are tested"
        ) from error
    use_tokenizer(bridge, tokenizer)
    model = Model(bridge, tokenizer, name=name, parameters=parameters, buffers=buffers)
    check_loaded(model, before) if self_check else find_how_it_runs(model)
    return model


def load_tokenizer(source: str | Path) -> Any:
    """A transformers tokenizer, by a name that `load_model` knows, from a folder, a GGUF file or the hub.

    Raises:
        ValueError: there is none.

    Example:
        >>> li.load_tokenizer("meta-llama/Llama-2-7b-hf")  # doctest: +SKIP
    """
    if str(source) in SHIPPED:
        source = shipped_dir(str(source))
    elif str(source) in NAMED_MODELS:
        named = NAMED_MODELS[str(source)]
        source = packaged_file(named) or named.hub
    source = os.path.expanduser(source)
    if (gguf := find_gguf(Path(source))) is not None:
        return read_gguf_tokenizer(gguf)
    local = Path(source).is_dir() or not source or not _hub_is_reachable()
    return _read_tokenizer(source, {"trust_remote_code": False, "local_files_only": local})


def _read_checkpoint(
    where: str, dtype: Any, device_map: Any, options: dict[str, Any], reachable: bool
) -> tuple[Any, str | None, list[str]]:
    """The transformers model, the format in which its weights were quantised, and the weights that were left out."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    try:
        config: Any = AutoConfig.from_pretrained(where, **options)
    except OSError as error:
        why = str(error).strip().splitlines()[0]
        if not reachable:
            why = (
                "it is not in the local cache, and the hub cannot be reached (or HF_HUB_OFFLINE is set); expected a "
                f"folder, a hub id, or {names_with_suggestion((*SHIPPED, *NAMED_MODELS), where)}"
            )
        raise FileNotFoundError(f"cannot load the model {where!r}: {why}") from error
    except Exception as error:  # a broken config.json raises many kinds
        raise ValueError(f"cannot load the model {where!r}: {first_line(error)}") from error
    to_dequantise, quantisation = dequantising(config, where)
    stored = tensors_in(Path(where)) if Path(where).is_dir() else None
    if to_dequantise and stored is not None:  # before transformers reads them: its own words would be of other things
        check_scales(stored, config, where)
    inside = text_config(config, where)
    own_config = config if inside is None else inside
    refuse_experts(own_config, where)
    architectures = _architectures(own_config, where, options["trust_remote_code"])
    of_tower = to_dequantise | ({} if inside is None else {"config": inside, "key_mapping": RENAMED})
    masked = any(name.endswith("ForMaskedLM") for name in architectures)
    cls: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    try:
        hf_model, report = cls.from_pretrained(
            where,
            dtype=dtype,
            device_map=device_map,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
            **of_tower,
        )
    except OSError as error:
        raise FileNotFoundError(f"cannot load the weights of {where!r}: {first_line(error)}") from error
    except ValueError as error:
        raise ValueError(
            f"{where!r} ({', '.join(architectures) or own_config.model_type}) is not a causal or masked language model "
            f"that transformers can load: {first_line(error)}"
        ) from error
    except Exception as error:  # safetensors, torch and zip files raise many kinds
        raise ValueError(
            f"the weights of {where!r} cannot be read ({type(error).__name__}: {first_line(error)}): they are "
            "damaged, or belong to another config.json"
        ) from error
    if stored is None:  # the files of the hub are in its cache now
        stored = tensors_in(_cache_of(where, hf_model.config))
        if to_dequantise:
            check_scales(stored, config, where)
    if to_dequantise:  # transformers leaves two dtypes, and says that the model is still quantised
        if hasattr(hf_model.config, "quantization_config"):
            del hf_model.config.quantization_config
        hf_model = hf_model.to(hf_model.config.dtype if dtype == "auto" else dtype)
    unexpected = set(report["unexpected_keys"])
    others = [] if inside is None else left_out(unexpected.union(tensor.name for tensor in stored))
    check_complete({**report, "unexpected_keys": unexpected.difference(others)}, where)
    return hf_model, quantisation or check_stored(stored, where), others


def _cache_of(hub_id: str, config: Any) -> Path:
    """The folder of a checkpoint's files in the cache of the hub."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(hub_id, "config.json", revision=getattr(config, "_commit_hash", None))
    return Path(str(cached)).parent


def _architectures(config: Any, where: str, trust_remote_code: bool) -> list[str]:
    import transformers

    named = config.architectures or []
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ValueError(f"config.json of {where!r} has the architectures {named!r}: expected names of classes")
    if unknown := [name for name in named if not hasattr(transformers, name) and not trust_remote_code]:
        raise ValueError(f"{where!r} asks for the architecture {unknown[0]!r}, which transformers does not have")
    return named


def _hub_is_reachable(seconds: float = 1.0) -> bool:
    """Whether it is worth asking the hub: its client retries for 20 seconds where there is no network."""
    import socket
    import threading
    from urllib.parse import urlparse
    from urllib.request import getproxies

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlparse(constants.ENDPOINT)
    if {address.scheme, "all"} & getproxies().keys():
        return True  # through a proxy, this cannot be tested here
    reached: list[bool] = []

    def ask() -> None:
        try:
            port = address.port or (443 if address.scheme == "https" else 80)
            with socket.create_connection((address.hostname, port), timeout=seconds):
                reached.append(True)
        except OSError:
            pass

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name cannot be given a time limit
    asking.start()
    asking.join(seconds)
    return bool(reached)


def _read_tokenizer(where: str, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    missing = f"no tokenizer comes with {where!r}: name a folder or hub id with one (load_model(..., tokenizer=...))"
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(where, **options)
    except Exception as error:  # the tokenizers library raises bare exceptions on damaged files
        raise ValueError(f"{missing} ({first_line(error)})") from error
    # Where the files are missing, transformers 5 makes a tokenizer of special tokens alone.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ValueError(missing)
    return tokenizer


def _read_generic_words(folder: Path) -> tuple[str, ...] | None:
    path = folder / GENERIC_WORDS
    if not path.is_file():
        return None
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): repair it, or remove it") from None
    if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError(f'{path} is not a JSON list of words, as in ["a", "the"]: repair it, or remove it')
    return tuple(words)


def _resolve_device(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_device(device: str) -> None:
    """Refuse a device that this machine does not have, before anything is loaded."""
    here = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    try:
        asked = torch.device("cpu" if device == "auto" else device)
        n = here[asked.type]
    except (RuntimeError, KeyError):
        raise ValueError(f"device is {device!r}: expected auto, cpu, cuda, cuda:1 or mps") from None
    if (asked.index or 0) >= n:
        raise ValueError(f"device is {device!r}, and this machine has {n} of its kind: use 'cpu' or 'auto'")


_DTYPES = ("float32", "bfloat16", "float16", "float64")


def _resolve_dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    if dtype == "auto":
        return dtype
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError(f"dtype is {dtype!r}: expected 'auto', a torch dtype, or one of {', '.join(_DTYPES)}")
    return getattr(torch, name)
