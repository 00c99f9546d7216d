"""GGUF files: checkpoints of llama.cpp. They are usually quantised, and are dequantised when they are read.

Quantisation noise is spread over all directions of a weight, so LASER may remove a part of it. For this reason every
result says which quantisation the file had.
"""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from laser_interp.extras import require
from laser_interp.models.complete_weights import check_complete
from laser_interp.models.library_internals import first_line, gguf_parsed_once

SUFFIX = ".gguf"
_MAGIC = b"GGUF"


def find_gguf(path: Path) -> Path | None:
    """The GGUF file that a path names: the file itself, or the only one in a folder without other weights.

    Raises:
        ValueError: the folder holds several GGUF files.
    """
    if path.is_file() and path.suffix == SUFFIX:
        return path
    if not path.is_dir() or any(path.glob("*.safetensors")) or any(path.glob("*.bin")):
        return None
    files = sorted(path.glob(f"*{SUFFIX}"))
    if len(files) > 1:
        raise ValueError(f"{path} holds {len(files)} GGUF files ({', '.join(f.name for f in files)}): name one of them")
    return files[0] if files else None


def read_gguf(path: Path, dtype: torch.dtype | str) -> tuple[Any, Any, str]:
    """The transformers model, its tokenizer, and how its weights were quantised, the commonest kind
    first, as in "Q4_1 Q8_0 F32".

    Args:
        dtype: "auto" dequantises to float32.

    Raises:
        ModuleNotFoundError: the package gguf is not installed.
        ValueError: a file that is broken, split, or of an architecture that transformers cannot read from GGUF.
    """
    require("gguf", "gguf", what=f"the GGUF file {path.name}")
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise ValueError(f"{path} is no GGUF file: it does not begin with GGUF")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with ExitStack() as stack:
        try:
            reader = stack.enter_context(gguf_parsed_once(path))
            split = reader.fields.get("split.count")
            n_parts = 1 if split is None else int(split.contents())
            kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors)
        except Exception as error:  # cut off, or damaged
            raise ValueError(
                f"the GGUF file {path} is broken ({type(error).__name__}: {error}): get it again"
            ) from error
        if n_parts > 1:
            raise ValueError(
                f"{path} is one of {n_parts} parts: join them first, with llama.cpp's `gguf-split --merge`"
            )
        if not kinds:
            raise ValueError(f"the GGUF file {path} holds no weights: it is a vocabulary, or broken")
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                dtype=torch.float32 if dtype == "auto" else dtype,
                output_loading_info=True,
                local_files_only=True,
            )
        except Exception as error:  # the readers raise many kinds
            raise ValueError(f"transformers cannot read the GGUF file {path}: {first_line(error)}") from error
    hf_model, report = loaded
    check_complete(report, str(path))
    # The weights are plain now; without this the model could not be saved.
    hf_model.hf_quantizer, hf_model.is_quantized = None, False
    if hasattr(hf_model.config, "quantization_config"):
        del hf_model.config.quantization_config
    return hf_model, tokenizer, " ".join(kind for kind, _ in kinds.most_common())


def read_gguf_tokenizer(path: Path) -> Any:
    """The tokenizer in a GGUF file.

    Raises:
        ModuleNotFoundError: the package gguf is not installed.
        ValueError: a file that transformers cannot read.
    """
    require("gguf", "gguf", what=f"the GGUF file {path.name}")
    from transformers import AutoTokenizer

    try:
        with gguf_parsed_once(path):
            return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except Exception as error:  # the readers raise many kinds
        raise ValueError(f"transformers cannot read the GGUF file {path}: {first_line(error)}") from error
