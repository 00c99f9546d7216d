"""Models. Everything this package knows of TransformerLens and of transformers lives here.

What the rest relies on, and what the tests hold for each supported family:

- every linear map has the uniform name `(layer, matrix)`, matrix in `q k v o in gate out`;
- weights are read as the checkpoint stores them: no folded norms, no centring;
- nothing is hooked unless an edit is on: the unedited model is the original, within the rounding of
  split attention projections and of reading the unembedding only where it is asked for.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.facts import SHIPPED, shipped_dir

MATRICES = ("q", "k", "v", "o", "in", "gate", "out")
_HALF = {q: "attn" for q in ("q", "k", "v", "o")} | {m: "mlp" for m in ("in", "gate", "out")}

# (input [..., d_in], output [..., d_out]) -> new output [..., d_out]
Rewrite = Callable[[Tensor, Tensor], Tensor]


class ActiveEdit(Protocol):
    """What a model needs of an edit: that it can be switched on."""

    def on(self, model: Model) -> AbstractContextManager[Any]: ...


class Model:
    """A trained transformer with named linear maps; made by `load_model`.

    Attributes:
        name: the hub id, the shipped name, or the folder's name.
        revision: the hub commit the weights came from, or None.
        tokenizer: the Hugging Face tokenizer, used exactly as its own call tokenises.
        bridge: the TransformerLens bridge, for whatever this class does not offer.
        n_layers, d_model, d_vocab: sizes.
        matrices: the matrices every layer has, in the order `q k v o in gate out`.
        generic_words: words the corpus follows prepositions with, shipped beside the weights in
            `generic_words.json`; None where no such file exists.
        active: what is edited right now, kept by the edits themselves.
        memo: results derived from the weights (factorisations, hashes), kept for the model's life.
    """

    def __init__(
        self,
        bridge: Any,
        tokenizer: Any,
        *,
        name: str,
        revision: str | None = None,
        parameters: Mapping[str, Tensor] | None = None,
        generic_words: Sequence[str] | None = None,
    ) -> None:
        self.bridge = bridge
        self.tokenizer = tokenizer
        self.name = name
        self.revision = revision
        self.n_layers: int = int(bridge.cfg.n_layers)
        self.d_model: int = int(bridge.cfg.d_model)
        self.d_vocab: int = int(bridge.cfg.d_vocab)
        self.max_positions: int | None = getattr(bridge.cfg, "n_ctx", None)
        self.generic_words = tuple(generic_words) if generic_words is not None else None
        self.active: dict[Any, Any] = {}
        self.memo: dict[Any, Any] = {}
        self._parameters = dict(parameters or {})
        self._hook_names = set(bridge.hook_dict)
        self.matrices = tuple(
            m
            for m in MATRICES
            if all(f"blocks.{layer}.{_HALF[m]}.{m}.hook_in" in self._hook_names for layer in range(self.n_layers))
        )

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {self.n_layers} layers, matrices {' '.join(self.matrices)}, {self.dtype})"

    # --- what it is ---------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(iter(self.bridge.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self.bridge.parameters())).dtype

    @property
    def n_params(self) -> int:
        """Number of parameters; tied ones count once."""
        return sum(p.numel() for p in self._parameters.values())

    @property
    def weights_sha256(self) -> str:
        """Hash of all parameters with their names, dtypes and shapes, as they were loaded."""
        if "weights_sha256" not in self.memo:
            digest = hashlib.sha256()
            for name, parameter in sorted(self._parameters.items()):
                digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
                digest.update(tensor_bytes(parameter))
            self.memo["weights_sha256"] = digest.hexdigest()
        return self.memo["weights_sha256"]

    def _linear(self, layer: int, matrix: str) -> Any:
        half = getattr(self.bridge.blocks[layer], _HALF[matrix])
        return getattr(half, matrix).original_component

    def weight(self, layer: int, matrix: str) -> Float[Tensor, "d_in d_out"]:
        """The raw weight of a linear map, so that its output is `x @ weight + bias`.

        Raises:
            ValueError: the weight is quantised or not floating point.
        """
        from transformers.pytorch_utils import Conv1D

        linear = self._linear(layer, matrix)
        weight = linear.weight.detach()
        if not weight.dtype.is_floating_point or weight.dtype.itemsize < 2:
            raise ValueError(
                f"the weight of {layer}.{matrix} of {self.name!r} is {weight.dtype}: quantised weights cannot be "
                "factored; load the model in float32, bfloat16 or float16"
            )
        return weight if isinstance(linear, Conv1D) else weight.T

    def bias(self, layer: int, matrix: str) -> Float[Tensor, " d_out"] | None:
        """The bias of a linear map, or None."""
        bias = self._linear(layer, matrix).bias
        return None if bias is None else bias.detach()

    def unembedding(self) -> Float[Tensor, "d_vocab d_model"]:
        """The output embedding, one row a token."""
        return self.bridge.original_model.get_output_embeddings().weight.detach()

    # --- text ---------------------------------------------------------------------------------

    def encode(self, prompt: str) -> list[int]:
        """Token ids as the tokenizer's own call gives them, its special tokens included.

        Raises:
            ValueError: the prompt has no tokens, or more than the model has positions.
        """
        ids = list(self.tokenizer(prompt)["input_ids"])
        if not ids:
            raise ValueError(f"the prompt {prompt!r} has no tokens: it must not be empty")
        self._check_length(ids, prompt)
        return ids

    def encode_answers(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Token ids of each (prompt, answer)'s answer as it continues its prompt.

        Which space joins them is not guessed: prompt and answer are tokenised together, and what
        follows the prompt's own tokens is the answer. Equal pairs are tokenised once.

        Raises:
            ValueError: the tokenizer cannot represent an answer, or prompt and answer are too long.
        """
        if not pairs:
            return []
        unique = list(dict.fromkeys(pairs))
        prompts = list(dict.fromkeys(prompt for prompt, _ in unique))
        before = dict(zip(prompts, self.tokenizer(prompts)["input_ids"], strict=True))
        spaces = ["" if p[-1:].isspace() or a[:1].isspace() else " " for p, a in unique]
        joined = self.tokenizer([p + space + a for (p, a), space in zip(unique, spaces, strict=True)])["input_ids"]
        unknown = self.tokenizer.unk_token_id
        out = {}
        for (prompt, answer), space, both in zip(unique, spaces, joined, strict=True):
            start = before[prompt]
            if both[: len(start)] == start:
                ids = list(both[len(start) :])
            else:  # the boundary merged, or special tokens follow the prompt
                ids = list(self.tokenizer(space + answer, add_special_tokens=False)["input_ids"])
            # Some tokenizers name a real token as their unknown one (GPT-2's end of text).
            if not ids or (unknown is not None and unknown in ids and self.tokenizer.unk_token not in answer):
                raise ValueError(
                    f"the answer {answer!r} cannot be written with the tokenizer of {self.name!r} "
                    f"(it becomes {self.tokenizer.convert_ids_to_tokens(ids)}): expected words of its vocabulary"
                )
            self._check_length(start + ids, prompt + space + answer)
            out[prompt, answer] = ids
        return [out[pair] for pair in pairs]

    def _check_length(self, ids: Sequence[int], text: str) -> None:
        if self.max_positions is not None and len(ids) > self.max_positions:
            raise ValueError(
                f"{text[:60]!r} has {len(ids)} tokens, and {self.name!r} has {self.max_positions} positions: shorten it"
            )

    def decode(self, ids: int | Sequence[int]) -> str:
        """Text of one token or several."""
        return self.tokenizer.decode([ids] if isinstance(ids, int) else list(ids))

    # --- running ------------------------------------------------------------------------------

    @contextmanager
    def rewriting(self, rewrites: Mapping[tuple[int, str], Rewrite]) -> Iterator[Model]:
        """Replace the outputs of linear maps by functions of their inputs and outputs, while open.

        Each function gets `x [..., d_in]` and `y [..., d_out]`, heads flattened, and returns the new
        `y`. Hooks are gone when the context ends, after an exception too.
        """
        hooks = []
        for (layer, matrix), rewrite in rewrites.items():
            d_in, d_out = self.weight(layer, matrix).shape
            kept: dict[str, Tensor] = {}

            def keep(x: Tensor, hook: Any, *, kept: dict[str, Tensor] = kept) -> None:
                kept["x"] = x

            def replace(
                y: Tensor,
                hook: Any,
                *,
                kept: dict[str, Tensor] = kept,
                rewrite: Rewrite = rewrite,
                d_in: int = d_in,
                d_out: int = d_out,
            ) -> Tensor:
                x = kept.pop("x")
                x = x if x.shape[-1] == d_in else x.flatten(-2)
                flat = y if y.shape[-1] == d_out else y.flatten(-2)
                return rewrite(x, flat).reshape(y.shape)

            at = f"blocks.{layer}.{_HALF[matrix]}.{matrix}"
            hooks += [(f"{at}.hook_in", keep), (f"{at}.hook_out", replace)]
        with self.bridge.hooks(fwd_hooks=hooks):
            yield self

    def n_hooks(self) -> int:
        """How many hooks are attached right now; 0 unless an edit is on."""
        return sum(len(handles) for handles in self.bridge.list_hooks().values())

    def logits_at(
        self,
        rows: Sequence[Sequence[int]],
        reads: Sequence[tuple[int, int]],
        *,
        batch_tokens: int = 4096,
    ) -> Iterator[tuple[list[int], Float[Tensor, "n d_vocab"]]]:
        """Next-token logits at chosen places, a batch at a time.

        Args:
            rows: token ids, of any lengths.
            reads: (row, position) pairs; a row may be read at several positions.
            batch_tokens: rows x padded length of a batch.

        Yields:
            Indices into `reads`, and their logits in fp32 (fp64 for an fp64 model). Rows nobody reads
            are not run; together the indices cover `reads` exactly once.
        """
        wanted: dict[int, list[int]] = {}
        for index, (row, _) in enumerate(reads):
            wanted.setdefault(row, []).append(index)
        order = sorted(wanted, key=lambda row: (len(rows[row]), row))
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and (stop + 1 - start) * len(rows[order[stop]]) <= batch_tokens:
                stop += 1
            batch = order[start:stop]
            start = stop
            indices = [index for row in batch for index in wanted[row]]
            at = [slot for slot, row in enumerate(batch) for _ in wanted[row]]
            yield indices, self._forward([rows[row] for row in batch], at, [reads[index][1] for index in indices])

    def _forward(self, rows: Sequence[Sequence[int]], at: list[int], positions: list[int]) -> Tensor:
        """Logits at (row, position) pairs of one right-padded batch."""
        longest = max(len(row) for row in rows)
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        row_index, position_index = torch.tensor(at), torch.tensor(positions)

        def only_what_is_read(x: Tensor, hook: Any) -> Tensor:
            return x[row_index, position_index].unsqueeze(1)

        # Nothing of the vocabulary's size is made for positions that nobody reads.
        with torch.no_grad(), self.bridge.hooks(fwd_hooks=[("unembed.hook_in", only_what_is_read)]):
            logits = self.bridge(
                ids.to(self.device), attention_mask=mask.to(self.device), return_type="logits", prepend_bos=False
            )
        return logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32))

    def next_token_logprobs(
        self, prompts: Sequence[str] | str, edit: ActiveEdit | None = None
    ) -> Float[Tensor, "n_prompts d_vocab"]:
        """Log-probabilities of the token after each prompt, fp32 (fp64 for an fp64 model)."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        rows = [self.encode(prompt) for prompt in prompts]
        reads = [(i, len(row) - 1) for i, row in enumerate(rows)]
        parts = []
        order: list[int] = []
        with edit.on(self) if edit is not None else nullcontext():
            for indices, logits in self.logits_at(rows, reads):
                order += indices
                parts.append(logits.log_softmax(-1))
        out = torch.cat(parts)
        return out[torch.tensor(order).argsort().to(out.device)]

    def generate(
        self, prompt: str, max_new_tokens: int = 20, *, edit: ActiveEdit | None = None, seed: int | None = None
    ) -> str:
        """The text the model continues `prompt` with (without the prompt itself).

        Greedy, or sampled at temperature 1 from `seed` where one is given.
        """
        ids = torch.tensor([self.encode(prompt)], device=self.device)
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if edit is not None:
                stack.enter_context(edit.on(self))
            if seed is not None:  # generation draws from the global generator; leave it as it was
                stack.enter_context(torch.random.fork_rng())
                torch.manual_seed(seed)
            out = self.bridge.original_model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=seed is not None,
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
            )
        return self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def tensor_bytes(tensor: Tensor) -> Any:
    """The raw bytes of a tensor, in row-major order, for hashing."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def _resolve_device(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_model(
    source: str | Path | tuple[Any, Any],
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: torch.dtype | str = "auto",
    copy_object: bool = True,
) -> Model:
    """Load a causal language model.

    Args:
        source: "organism" or "organism-control" (shipped), a local folder in the Hugging Face format,
            a hub id, or `(hf_model, tokenizer)` already in memory.
        tokenizer: used instead of the one beside the weights.
        revision: of a hub id.
        device: "auto" (a CUDA device if there is one), "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" keeps the checkpoint's own.
        copy_object: wrapping changes a transformers object for good, so one in memory is copied
            first; False saves the copy and gives the object away.

    Raises:
        ValueError: an unsupported architecture, or no tokenizer.
        FileNotFoundError: neither a folder nor a model the hub (or its local cache) has.
    """
    if isinstance(source, tuple):
        hf_model, tokenizer = source[0], source[1] if tokenizer is None else tokenizer
        if copy_object:
            hf_model = copy.deepcopy(hf_model)
        if device != "auto":
            hf_model = hf_model.to(device)
        if dtype != "auto":
            hf_model = hf_model.to(dtype)
        return _wrap(hf_model, tokenizer, name=type(hf_model).__name__, revision=None, generic_words=None)

    from transformers import AutoModelForCausalLM, AutoTokenizer

    shipped = str(source) in SHIPPED
    path = shipped_dir(str(source)) if shipped else Path(source)
    local = path.is_dir()
    if not local and (str(source).startswith((".", "/", "~")) or str(source).count("/") > 1 or path.exists()):
        raise FileNotFoundError(
            f"no model folder {str(source)!r}: expected a folder with config.json and weights, a hub id, "
            f"or one of {', '.join(SHIPPED)}"
        )
    where = str(path) if local else str(source)
    try:
        hf_model: Any = AutoModelForCausalLM.from_pretrained(
            where, revision=revision, dtype=dtype, local_files_only=local
        )
    except OSError as error:
        first = str(error).strip().splitlines()[0]
        raise FileNotFoundError(f"cannot load the model {str(source)!r}: {first}") from error
    if tokenizer is None:
        missing = f"no tokenizer comes with {str(source)!r}: pass one as load_model(..., tokenizer=...)"
        try:
            tokenizer = AutoTokenizer.from_pretrained(where, revision=revision, local_files_only=local)
        except (OSError, ValueError) as error:
            raise ValueError(missing) from error
        # Where the files are missing, transformers 5 makes a tokenizer of special tokens alone.
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
            raise ValueError(missing)
    return _wrap(
        hf_model.to(_resolve_device(device)),
        tokenizer,
        name=path.resolve().name if local else str(source),
        revision=getattr(hf_model.config, "_commit_hash", None) or revision,
        generic_words=_read_generic_words(path) if local else None,
    )


def _read_generic_words(folder: Path) -> list[str] | None:
    import json

    path = folder / "generic_words.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _wrap(
    hf_model: Any, tokenizer: Any, *, name: str, revision: str | None, generic_words: Sequence[str] | None
) -> Model:
    os.environ.setdefault("WANDB_MODE", "disabled")  # TransformerLens imports it; nothing here logs to it
    # Private in TransformerLens 4.3, but the one entry that takes a loaded module as it is: no hub, no upcast.
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    if tokenizer is None:
        raise ValueError(f"no tokenizer for {name!r}: pass load_model((hf_model, tokenizer))")
    hf_model.eval()
    hf_model.requires_grad_(False)
    parameters = dict(hf_model.named_parameters())
    architecture = type(hf_model).__name__
    try:
        bridge = build_bridge_from_module(hf_model, architecture, hf_config=hf_model.config)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"TransformerLens does not support the architecture {architecture} of {name!r}: {error}"
        ) from error
    return Model(bridge, tokenizer, name=name, revision=revision, parameters=parameters, generic_words=generic_words)
