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
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.facts.fact_set import SHIPPED, shipped_dir
from laser_interp.storage.tables import new_folder

MATRICES = ("q", "k", "v", "o", "in", "gate", "out")
_HALF = {q: "attn" for q in ("q", "k", "v", "o")} | {m: "mlp" for m in ("in", "gate", "out")}

GENERIC_WORDS = "generic_words.json"
# In a compressed checkpoint: "LAYER.MATRIX.down" [d_in, k] and "LAYER.MATRIX.up" [k, d_out].
FACTORS = "factors.safetensors"

# (input [..., d_in], output [..., d_out]) -> new output [..., d_out]
Rewrite = Callable[[Tensor, Tensor], Tensor]
# (input [n, d_in], the original map) -> output [n, d_out], or that of all copies where they share their input
Compute = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]


class ActiveEdit(Protocol):
    """What a model needs of an edit: that it can be switched on."""

    def on(self, model: Model) -> AbstractContextManager[Any]: ...


class FactoredLinear(torch.nn.Module):
    """A linear map stored as two thin factors: `y = (x @ down) @ up + bias`."""

    def __init__(self, down: Float[Tensor, "d_in k"], up: Float[Tensor, "k d_out"], bias: Tensor | None) -> None:
        super().__init__()
        self.down = torch.nn.Parameter(down, requires_grad=False)
        self.up = torch.nn.Parameter(up, requires_grad=False)
        self.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
        self.in_features, self.out_features = down.shape[0], up.shape[1]

    @property
    def weight(self) -> Float[Tensor, "d_out d_in"]:
        """The dense weight as torch's Linear keeps it, made on demand."""
        return (self.down @ self.up).T

    def forward(self, x: Tensor) -> Tensor:
        y = (x @ self.down) @ self.up
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True, eq=False)
class Batch:
    """Token sequences that run together, padded on the right.

    A causal model's tokens depend on what stands before them alone, so of tokens with equal beginnings
    one is computed and the others copy it; padding copies any.

    Attributes:
        ids, mask: `[rows, longest]`.
        tokens: flat indices into `[rows, longest]` of the tokens whose linear maps are computed.
        copies_of: `[rows * longest]`, for each place which of `tokens` it takes its result from.
        reads: flat indices of the places whose next-token logits are wanted, in the order asked for.
    """

    ids: Tensor
    mask: Tensor
    tokens: Tensor
    copies_of: Tensor
    reads: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        rows, longest = self.ids.shape
        return int(rows), int(longest)

    @property
    def whole(self) -> bool:
        """Whether every place is computed for itself."""
        return len(self.tokens) == self.ids.numel()


@dataclass
class Record:
    """What a layer computed in a run of the model as trained, to be used again where an edit leaves it as it is.

    Attributes:
        linear: matrix -> its outputs at the computed tokens, `[tokens, d_out]`.
        half: "attn" or "mlp" -> what that module returned.
    """

    linear: dict[str, Tensor] = field(default_factory=dict)
    half: dict[str, Any] = field(default_factory=dict)


class Model:
    """A trained transformer with named linear maps; made by `load_model`.

    Attributes:
        name: the hub id, the shipped name, or the folder's name.
        revision: the hub commit the weights came from, or None.
        tokenizer: the Hugging Face tokenizer, used exactly as its own call tokenises.
        bridge: the TransformerLens bridge, for whatever this class does not offer.
        n_layers, d_model, d_vocab: sizes.
        matrices: the matrices every layer has, in the order `q k v o in gate out`.
        masked: whether it is a masked language model (BERT, RoBERTa), which answers at the mask.
        generic_words: words the corpus follows prepositions with, shipped beside the weights in
            `generic_words.json`; None where no such file exists.
        source: what `load_model` was called with, so that another process can load the same; None for an
            object in memory.
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
        self.source: dict[str, Any] | None = None
        self.active: dict[Any, Any] = {}
        self.memo: dict[Any, Any] = {}
        self._running: tuple[Sequence[Sequence[int]], Sequence[int]] | None = None  # token ids, and where they start
        self.architecture = str(bridge.cfg.architecture)
        self.masked = self.architecture.endswith("ForMaskedLM")
        if self.masked and tokenizer.mask_token_id is None:
            raise ValueError(f"{name!r} is a masked language model, but its tokenizer has no mask token")
        # TransformerLens 4.3's GPT-1 loses its causal mask as soon as it is given any attention mask.
        self._takes_mask = self.architecture != "OpenAIGPTLMHeadModel"
        self._parameters = dict(parameters or {})
        # (layer, matrix) stored as factors -> its dense parameter's name ("~" before it: rows are inputs)
        self._thin: dict[tuple[int, str], str] = {}
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
    def n_bytes(self) -> int:
        """Bytes of all parameters; tied ones count once."""
        return sum(p.numel() * p.element_size() for p in self._parameters.values())

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

    def _stored_at(self, layer: int, matrix: str) -> tuple[str, Tensor]:
        """Where the checkpoint stores a matrix: the parameter's name, with "~" before it where rows are
        inputs, and for each of the matrix's outputs the index at which the parameter holds it.

        Found by value among the layer's parameters, so that no family needs a table of its own.
        """
        if (layer, matrix) in self._thin:
            return self._thin[layer, matrix], torch.arange(self._linear(layer, matrix).out_features)
        wanted = self.weight(layer, matrix).T
        candidates = [
            (mark + name, p.detach().T if mark else p.detach())
            for name, p in self._parameters.items()
            if f".{layer}." in name and p.ndim == 2
            for mark in ("", "~")
        ]
        for name, held in candidates:  # most are stored on their own
            if held.shape == wanted.shape and torch.equal(held, wanted):
                return name, torch.arange(len(held))
        rows = _rows_by_value(wanted)
        for name, held in candidates:
            if held.shape[1] == wanted.shape[1] and held.shape[0] > wanted.shape[0]:
                at = {row: i for i, row in reversed(list(enumerate(_rows_by_value(held))))}
                if all(row in at for row in rows):
                    index = torch.tensor([at[row] for row in rows])
                    if len(index.unique()) == len(index):
                        return name, index
        raise ValueError(
            f"cannot tell where {self.name!r} stores {layer}.{matrix}: it is in none of the layer's weights"
        )

    @property
    def thin(self) -> tuple[tuple[int, str], ...]:
        """The (layer, matrix) pairs that are stored as factors; see `laser_interp.compress`."""
        return tuple(sorted(self._thin))

    def is_fused(self, layer: int, matrix: str) -> bool:
        """Whether the checkpoint stores a matrix in one parameter with others."""
        if (layer, matrix) in self._thin:
            return False
        name, index = self._stored_at(layer, matrix)
        parameter = self._parameters[name.lstrip("~")]
        return parameter.shape[1 if name.startswith("~") else 0] != len(index)

    def save_checkpoint(
        self,
        out: str | Path,
        *,
        dense: Mapping[tuple[int, str], Tensor] | None = None,
        factors: Mapping[tuple[int, str], tuple[Tensor, Tensor]] | None = None,
    ) -> Path:
        """Write the model as a Hugging Face checkpoint, with some matrices replaced.

        Args:
            out: folder; it appears only when it is complete.
            dense: (layer, matrix) -> new weight `[d_in, d_out]`.
            factors: (layer, matrix) -> `(down [d_in, k], up [k, d_out])`. These matrices are left out
                of the checkpoint and stored as factors beside it, which only `load_model` reads.

        Raises:
            FileExistsError: `out` is there and not empty.
        """
        with new_folder(Path(out)) as folder:
            self._write_checkpoint(folder, dict(dense or {}), dict(factors or {}))
        return Path(out)

    def _write_checkpoint(
        self,
        folder: Path,
        dense: dict[tuple[int, str], Tensor],
        factors: dict[tuple[int, str], tuple[Tensor, Tensor]],
    ) -> None:
        from safetensors.torch import save_file
        from transformers import PreTrainedModel

        state = {name: p.detach() for name, p in self._parameters.items()}
        for site, name in self._thin.items():
            name = name.removeprefix("~")
            down, up = state.pop(f"{name}.down"), state.pop(f"{name}.up")
            if site in dense:
                shape = reversed(self.weight(*site).shape) if name == self._thin[site] else self.weight(*site).shape
                state[name] = torch.empty(*shape, dtype=down.dtype, device=down.device)
            else:
                factors.setdefault(site, (down, up))
        for (layer, matrix), weight in dense.items():
            name, index = self._stored_at(layer, matrix)
            held = state[name.removeprefix("~")] = state[name.removeprefix("~")].clone()
            (held.T if name.startswith("~") else held)[index.to(held.device)] = weight.T.to(held)
        thin = {}
        for (layer, matrix), (down, up) in factors.items():
            state.pop(self._stored_at(layer, matrix)[0].removeprefix("~"), None)
            dtype = self._linear(layer, matrix).weight.dtype
            thin[f"{layer}.{matrix}.down"] = down.to("cpu", dtype).contiguous()
            thin[f"{layer}.{matrix}.up"] = up.to("cpu", dtype).contiguous()

        original: PreTrainedModel = self.bridge.original_model
        config = copy.deepcopy(original.config)
        config.architectures = [type(original).__name__]
        config.dtype = self.dtype
        config.save_pretrained(folder)
        if getattr(original, "generation_config", None) is not None:
            original.generation_config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_file({k: v.cpu().contiguous() for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"})
        if thin:
            save_file(thin, folder / FACTORS)
        if self.generic_words is not None:
            (folder / GENERIC_WORDS).write_text(json.dumps(self.generic_words) + "\n", encoding="utf-8")

    def _use_factors(self, stored: Mapping[str, Tensor]) -> None:
        """Put thin factors where the checkpoint left matrices out."""
        from transformers.pytorch_utils import Conv1D

        for name in sorted({name.rpartition(".")[0] for name in stored}):
            layer, matrix = name.split(".")
            linear = self._linear(int(layer), matrix)
            like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
            down, up = (stored[f"{name}.{part}"].to(**like) for part in ("down", "up"))
            bridge = getattr(getattr(self.bridge.blocks[int(layer)], _HALF[matrix]), matrix)
            gone = next(k for k, p in self._parameters.items() if p is linear.weight)
            del self._parameters[gone]
            self._thin[int(layer), matrix] = ("~" if isinstance(linear, Conv1D) else "") + gone
            bridge.set_original_component(FactoredLinear(down, up, linear.bias))
            self._parameters |= {f"{gone}.down": down, f"{gone}.up": up}
        self.memo.clear()

    def unembedding(self) -> Float[Tensor, "d_vocab d_model"]:
        """The output embedding, one row a token."""
        return self.bridge.original_model.get_output_embeddings().weight.detach()

    # --- text ---------------------------------------------------------------------------------

    def embedding(self) -> Float[Tensor, "d_vocab d_embedding"]:
        """The input embedding, one row a token."""
        return self.bridge.original_model.get_input_embeddings().weight.detach()

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

    def questions(self, prompts: Sequence[str]) -> list[tuple[list[int], int]]:
        """Where each prompt's next token is read: its token ids, and a position in them.

        A causal model is read at the prompt's last token. A masked one is read at its mask: a prompt
        may hold the tokenizer's mask token where the answer belongs; otherwise `<mask>.` is appended,
        as the paper did for RoBERTa.

        Raises:
            ValueError: an empty or too long prompt, or one with several masks.
        """
        if not self.masked:
            rows = [self.encode(prompt) for prompt in prompts]
            return [(row, len(row) - 1) for row in rows]
        out = []
        for prompt in prompts:
            row = self.encode(self._with_mask(prompt))
            out.append((row, row.index(self.tokenizer.mask_token_id)))
        return out

    def _with_mask(self, prompt: str) -> str:
        """A masked model's prompt, with one mask where the answer belongs."""
        mask = self.tokenizer.mask_token
        if prompt.count(mask) > 1:
            raise ValueError(f"the prompt {prompt!r} has several {mask}: one marks the place of the whole answer")
        if not prompt.strip():
            raise ValueError(f"the prompt {prompt!r} has no tokens: it must not be empty")
        return prompt if mask in prompt else f"{prompt} {mask}."

    def lookups(self, pairs: Sequence[tuple[str, str]]) -> list[list[tuple[list[int], int, int]]]:
        """What to read for the probability of each (prompt, answer): (token ids, position, token) triples.

        The log-probability of the answer is the sum over its triples of the token's log-probability
        at the position, that is, teacher-forced from left to right. A masked model is given as many
        masks as the answer has tokens, the earlier ones filled in.

        Raises:
            ValueError: see `encode_answers`.
        """
        answers = self.encode_answers(pairs)
        prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
        asked = dict(zip(prompts, self.questions(prompts), strict=True))
        out = []
        for (prompt, _), tokens in zip(pairs, answers, strict=True):
            row, at = asked[prompt]
            if self.masked:
                masks = [self.tokenizer.mask_token_id] * len(tokens)
                filled = [row[:at] + tokens[:j] + masks[j:] + row[at + 1 :] for j in range(len(tokens))]
                out.append([(filled[j], at + j, token) for j, token in enumerate(tokens)])
            else:
                whole = row + tokens[:-1]
                out.append([(whole, at + j, token) for j, token in enumerate(tokens)])
        return out

    def encode_answers(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Token ids of each (prompt, answer)'s answer, as it stands in or after its prompt.

        Which space joins them is not guessed: prompt and answer are tokenised together, and what the
        answer adds to the prompt's own tokens is its own. Equal pairs are tokenised once.

        Raises:
            ValueError: the tokenizer cannot represent an answer, or prompt and answer are too long.
        """
        if not pairs:
            return []
        unique = list(dict.fromkeys(pairs))
        prompts = list(dict.fromkeys(prompt for prompt, _ in unique))
        joined = []
        if self.masked:
            texts = {prompt: self._with_mask(prompt) for prompt in prompts}
            joined = [texts[prompt].replace(self.tokenizer.mask_token, answer) for prompt, answer in unique]
        else:
            texts = {prompt: prompt for prompt in prompts}
            joined = [
                prompt + ("" if prompt[-1:].isspace() or answer[:1].isspace() else " ") + answer
                for prompt, answer in unique
            ]
        alone = dict(zip(prompts, self.tokenizer([texts[prompt] for prompt in prompts])["input_ids"], strict=True))
        both = self.tokenizer(joined)["input_ids"]
        unknown = self.tokenizer.unk_token_id
        out = {}
        for (prompt, answer), text, whole in zip(unique, joined, both, strict=True):
            ids = self._added(alone[prompt], whole, answer)
            # Some tokenizers name a real token as their unknown one (GPT-2's end of text).
            if not ids or (unknown is not None and unknown in ids and self.tokenizer.unk_token not in answer):
                raise ValueError(
                    f"the answer {answer!r} cannot be written with the tokenizer of {self.name!r} "
                    f"(it becomes {self.tokenizer.convert_ids_to_tokens(ids)}): expected words of its vocabulary"
                )
            self._check_length(whole, text)
            out[prompt, answer] = ids
        return [out[pair] for pair in pairs]

    def _added(self, alone: list[int], whole: list[int], answer: str) -> list[int]:
        """The tokens of `whole` that `alone` (the prompt, for a masked model with its mask) has not."""
        at = alone.index(self.tokenizer.mask_token_id) if self.masked else len(alone)
        rest = alone[at + 1 :]
        if whole[:at] == alone[:at] and whole[len(whole) - len(rest) :] == rest:
            return list(whole[at : len(whole) - len(rest)])
        # The boundary merged, or special tokens follow the prompt: the answer as a word of its own.
        return list(self.tokenizer(" " + answer, add_special_tokens=False)["input_ids"])

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
    def rewriting(self, rewrites: Mapping[tuple[int, str], Rewrite], path: str = "network") -> Iterator[Model]:
        """Replace the outputs of linear maps by functions of their inputs and outputs, while open.

        Each function gets `x [..., d_in]` and `y [..., d_out]`, heads flattened, and returns the new
        `y`. Hooks are gone when the context ends, after an exception too.

        Args:
            path: "network": all that follows sees the change. "direct": only the final residual stream does.
                "indirect": all that follows does, but the change itself is taken out of the final residual
                stream. The last two need `adds_to_residual`.
        """
        hooks: list[tuple[str, Callable[..., Any]]] = []
        changes: list[Tensor] = []
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
                new = rewrite(x, flat)
                if path != "network":
                    changes.append(new - flat)
                return (flat if path == "direct" else new).reshape(y.shape)

            at = f"blocks.{layer}.{_HALF[matrix]}.{matrix}"
            hooks += [(f"{at}.hook_in", keep), (f"{at}.hook_out", replace)]

        def at_the_end(x: Tensor, hook: Any) -> Tensor:
            moved = torch.stack([change.to(x.device) for change in changes]).sum(0)
            changes.clear()
            return x + moved if path == "direct" else x - moved

        if path != "network":
            hooks.append(("ln_final.hook_in", at_the_end))
        with self.bridge.hooks(fwd_hooks=hooks):
            yield self

    def adds_to_residual(self, layer: int, matrix: str) -> str | None:
        """Why a matrix's output is not simply a term of the final residual stream; None where it is.

        Found out by moving the output of the layer's last matrix and looking at the layer's: a norm in between,
        as in Gemma 2 or BERT, shows.
        """
        if matrix not in ("o", "out"):
            return f"{matrix!r} does not write into the residual stream; only o and out do"
        if "adds" not in self.memo:
            self.memo["adds"] = self._is_additive()
        if not self.memo["adds"]:
            return f"{self.architecture} has norms between its matrices and the residual stream, or none at its end"
        return None

    def _is_additive(self) -> bool:
        if self.masked or "ln_final.hook_in" not in self.bridge.hook_dict:
            return False
        layer, seen = self.n_layers - 1, []
        generator = torch.Generator().manual_seed(0)
        shift = torch.randn(self.d_model, generator=generator)

        def look(x: Tensor, hook: Any) -> None:
            seen.append(x[:, -1].double().cpu())

        row = [self._padding_id, *range(min(4, self.d_vocab))]
        for move in (None, shift):
            hooks: list[tuple[str, Any]] = [("ln_final.hook_in", look)]
            rewrites = {} if move is None else {(layer, "out"): lambda x, y: y + shift.to(y)}
            with self.rewriting(rewrites), self.bridge.hooks(fwd_hooks=hooks):
                self._forward([row], [0], [len(row) - 1], "right")
        moved = shift.to(self.dtype).double()
        return bool(((seen[1] - seen[0])[0] - moved).norm() < 0.02 * moved.norm())

    def tokens_of(self, prompt: str, part: str) -> list[int]:
        """Positions, in the prompt's token ids, of the tokens that hold a part of its text (its last occurrence).

        Raises:
            ValueError: the prompt does not hold it, or a tokenizer that cannot tell.
        """
        start = prompt.rfind(part) if part else -1
        if start < 0:
            raise ValueError(f"the prompt {prompt!r} does not hold the subject {part!r}: which tokens are meant?")
        if not self.tokenizer.is_fast:
            raise ValueError(f"the tokenizer of {self.name!r} cannot tell which token holds which letters: use 'last'")
        text = self._with_mask(prompt) if self.masked else prompt
        spans = self.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        found = [i for i, (a, b) in enumerate(spans) if a < b and a < start + len(part) and b > start]
        # A token may hold the space before the word and nothing of it.
        return [i for i in found if text[spans[i][0] : spans[i][1]].strip()] or found

    def placed(
        self, shape: tuple[int, ...], places: Mapping[tuple[int, ...], Sequence[int]]
    ) -> list[tuple[int, int, int, tuple[int, ...]]]:
        """Where chosen places of known prompts are in what is being run: (row, position in it, number of the place,
        beginning of the prompt).

        Args:
            shape: of the activations, `[rows, positions, …]`.
            places: how prompts begin (token ids) -> positions; the longest beginning that fits counts.

        Raises:
            ValueError: a prompt that is not among them, or activations that this class did not ask for.
        """
        if self._running is None:
            raise ValueError("an edit at chosen positions works in score, sweep, next_token_logprobs and generate only")
        rows, starts = self._running
        if shape[1] < max(len(row) + start for row, start in zip(rows, starts, strict=True)):
            return []  # one more token of a generation, its beginning kept in a cache
        lengths = sorted({len(key) for key in places}, reverse=True)
        out = []
        for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
            key = next((key for n in lengths if (key := tuple(row[:n])) in places), None)
            if key is None:
                raise ValueError(
                    f"the prompt {self.decode(list(row))!r} is none of those that the positions of this edit were made "
                    "for: give all of them to Edit.at"
                )
            out += [(i, start + position, number, key) for number, position in enumerate(places[key])]
        return out

    def n_hooks(self) -> int:
        """How many hooks are attached right now, but for the bridge's permanent ones; 0 unless an edit is on."""
        return sum(len(handles) for handles in self.bridge.list_hooks(including_permanent=False).values())

    def logits_at(
        self,
        rows: Sequence[Sequence[int]],
        reads: Sequence[tuple[int, int]],
        *,
        batch_tokens: int = 4096,
        padding: str = "right",
    ) -> Iterator[tuple[list[int], Float[Tensor, "n d_vocab"]]]:
        """Next-token logits at chosen places, a batch at a time.

        Args:
            rows: token ids, of any lengths.
            reads: (row, position) pairs; a row may be read at several positions.
            batch_tokens: rows x padded length of a batch.
            padding: "right" or "left"; it makes no difference to the result.

        Yields:
            Indices into `reads`, and their logits in fp32 (fp64 for an fp64 model). Rows nobody reads
            are not run; together the indices cover `reads` exactly once.
        """
        if padding not in ("right", "left"):
            raise ValueError(f"padding is {padding!r}: expected 'right' or 'left'")
        if padding == "left" and not self._takes_mask:
            raise ValueError(
                f"{self.name!r} cannot be padded on the left: TransformerLens's {self.architecture} stops being causal "
                "when it is given an attention mask, so it is run without one, padded on the right"
            )
        wanted: dict[int, list[int]] = {}
        for index, (row, _) in enumerate(reads):
            wanted.setdefault(row, []).append(index)
        for batch in self._batches(rows, list(wanted), batch_tokens):
            indices = [index for row in batch for index in wanted[row]]
            at = [slot for slot, row in enumerate(batch) for _ in wanted[row]]
            positions = [reads[index][1] for index in indices]
            yield indices, self._forward([rows[row] for row in batch], at, positions, padding)

    def _batches(self, rows: Sequence[Sequence[int]], chosen: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
        """The chosen rows, those of about equal length together, as many as the budget holds."""
        order = sorted(chosen, key=lambda row: (len(rows[row]), row))
        start = 0
        while start < len(order):
            stop = start + 1
            while (
                stop < len(order)
                and (stop + 1 - start) * len(rows[order[stop]]) <= batch_tokens
                and (self.may_pad or len(rows[order[stop]]) == len(rows[order[start]]))
            ):
                stop += 1
            yield order[start:stop]
            start = stop

    def _forward(
        self,
        rows: Sequence[Sequence[int]],
        at: list[int],
        positions: list[int],
        padding: str,
        *,
        gradients: bool = False,
    ) -> Tensor:
        """Logits at (row, position) pairs of one padded batch."""
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), self._padding_id, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        starts = [longest - len(row) if padding == "left" else 0 for row in rows]
        for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
            ids[i, start : start + len(row)] = torch.tensor(row)
            mask[i, start : start + len(row)] = 1
        self._running = rows, starts
        row_index = torch.tensor(at)
        position_index = torch.tensor([starts[i] + p for i, p in zip(at, positions, strict=True)])

        def only_what_is_read(x: Tensor, hook: Any) -> Tensor:
            return x[row_index.to(x.device), position_index.to(x.device)].unsqueeze(1)

        # Nothing of the vocabulary's size is made for positions that nobody reads.
        only = [("unembed.hook_in", only_what_is_read)]
        with torch.set_grad_enabled(gradients), self.bridge.hooks(fwd_hooks=only):
            try:
                logits = self.bridge(
                    ids.to(self.device),
                    attention_mask=mask.to(self.device) if self._takes_mask else None,
                    return_type="logits",
                    prepend_bos=False,
                )
            finally:
                self._running = None
        return logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32))

    def activations(
        self,
        rows: Sequence[Sequence[int]],
        targets: Sequence[Sequence[tuple[int, int]]] | None,
        sites: Sequence[tuple[int, str]],
        *,
        batch_tokens: int = 2048,
    ) -> Iterator[tuple[list[int], Tensor, Callable[[tuple[int, str]], tuple[Tensor, Tensor]]]]:
        """Inputs of linear maps, and how much a small change of their outputs changes an answer's log-probability.

        Args:
            rows: token ids.
            targets: for each row the (position, next token) pairs whose log-probabilities are summed; None: no
                gradients are wanted.
            sites: (layer, matrix) pairs.

        Yields:
            Indices of rows; their summed log-probabilities, `[n]` (zeros without targets); and what gives for a
            site its inputs `x [n, positions, d_in]` and the gradient by its outputs, `[n, positions, d_out]`
            (empty without targets), heads flattened. Places beyond a row's end have a gradient of zero, and inputs
            that mean nothing.
        """
        for batch in self._batches(rows, range(len(rows)), batch_tokens):
            of_batch = None if targets is None else [targets[i] for i in batch]
            yield batch, *self._activations([rows[i] for i in batch], of_batch, sites)

    def _activations(
        self,
        rows: Sequence[Sequence[int]],
        targets: Sequence[Sequence[tuple[int, int]]] | None,
        sites: Sequence[tuple[int, str]],
    ) -> tuple[Tensor, Callable[[tuple[int, str]], tuple[Tensor, Tensor]]]:
        inputs: dict[tuple[int, str], Tensor] = {}
        moved: dict[tuple[int, str], Tensor] = {}

        def watch(site: tuple[int, str]) -> Rewrite:
            def rewrite(x: Tensor, y: Tensor) -> Tensor:
                inputs[site] = x.detach()
                if targets is None:
                    return y
                moved[site] = torch.zeros_like(y, requires_grad=True)
                return y + moved[site]

            return rewrite

        pairs = [(0, 0)] if targets is None else [(i, p) for i, row in enumerate(targets) for p, _ in row]
        with self.rewriting({site: watch(site) for site in sites}):
            logits = self._forward(
                rows, [i for i, _ in pairs], [p for _, p in pairs], "right", gradients=targets is not None
            )
        total = torch.zeros(len(rows), dtype=torch.float64)
        gradients: dict[tuple[int, str], Tensor] = {}
        if targets is not None:
            tokens = torch.tensor([token for row in targets for _, token in row], device=logits.device)
            found = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
            made = torch.autograd.grad(found.sum(), [moved[site] for site in sites], allow_unused=True)
            gradients = {
                site: torch.zeros_like(moved[site]) if one is None else one
                for site, one in zip(sites, made, strict=True)
            }
            total.index_add_(0, torch.tensor([i for i, _ in pairs]), found.detach().double().cpu())
        return total, lambda site: (inputs[site], gradients.get(site, inputs[site].new_zeros(0)))

    def batch(self, rows: Sequence[Sequence[int]], reads: Sequence[tuple[int, int]]) -> Batch:
        """Pad token sequences, and find which of their tokens have to be computed.

        Args:
            reads: (row, position) pairs whose next-token logits are wanted.
        """
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self._padding_id, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        first: dict[Any, int] = {}  # a token with all it depends on -> which of the computed ones it is
        tokens: list[int] = []
        copies_of = torch.zeros(len(rows) * longest, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
            before: Any = tuple(row) if self.masked else None
            for position, token in enumerate(row):
                key = (before, position if self.masked else token)
                if key not in first:
                    first[key] = len(tokens)
                    tokens.append(i * longest + position)
                before = before if self.masked else first[key]
                copies_of[i * longest + position] = first[key]
        flat = [row * longest + position for row, position in reads]
        return Batch(
            ids.to(self.device),
            mask.to(self.device),
            torch.tensor(tokens, device=self.device),
            copies_of.to(self.device),
            torch.tensor(flat, dtype=torch.long, device=self.device),
        )

    def run(
        self,
        batch: Batch,
        *,
        copies: int = 1,
        start: int = 0,
        residual: Float[Tensor, "rows longest d_model"] | None = None,
        stop: int | None = None,
        linear: Mapping[tuple[int, str], Compute] | None = None,
        shared: Collection[tuple[int, str]] = (),
        half: Mapping[tuple[int, str], Any] | None = None,
        record: Record | None = None,
    ) -> Tensor:
        """Run some layers of the model on a batch, `copies` times side by side.

        Linear maps are computed at `batch.tokens` alone, and so is what an MLP does between them; those of
        the last layer, but for keys and values, only where the batch is read.

        Args:
            start, residual: resume before layer `start` from the residual stream that enters it.
            stop: end before this layer; None runs to the logits.
            linear: (layer, matrix) -> what computes it instead, from its input at the computed tokens of
                all copies and a function that computes the original.
            shared: (layer, matrix) of those whose input is the same in all copies: they are given that of
                one and return the outputs of all. (layer, "mlp") where that holds for all of a layer's MLP.
            half: (layer, "attn" or "mlp") -> what a `Record` says that half returned, to be returned again.
            record: filled with what layer `start` computes.

        Returns:
            Logits `[copies * reads, d_vocab]` in fp32 (fp64 for an fp64 model), copy by copy; or, with
            `stop`, the residual stream that enters that layer, `[rows, longest, d_model]`.
        """
        end = self.n_layers if stop is None else stop
        rows, longest = batch.shape
        reached: list[Tensor] = []

        with ExitStack() as stack:

            def instead(module: Any, forward: Callable[..., Any]) -> None:
                own = module.__dict__  # a bridge's own setattr passes some names on to what it wraps
                before = {"forward": own["forward"]} if "forward" in own else {}
                own["forward"] = forward
                stack.callback(lambda: own.pop("forward") and own.update(before))

            for layer, block in enumerate(self.bridge.blocks):
                if not start <= layer < end:
                    instead(block, self._identity(reached if layer == stop else None))
            for module, forward in self._faster(range(start, end)):
                instead(module, forward)
            everywhere, where_read = (_Places.of(batch, copies, only_read) for only_read in (False, True))
            for layer in range(start, end):
                is_last = layer == self.n_layers - 1
                mlp = self.bridge.blocks[layer].mlp
                packs_mlp = self.has_mlp_module(layer)
                if packs_mlp and (layer, "mlp") not in (half or {}):
                    places = where_read if is_last else everywhere
                    instead(mlp, places.packed(mlp.forward, one_copy=(layer, "mlp") in shared))
                for m in self.matrices:
                    places = where_read if is_last and m not in ("k", "v") else everywhere
                    compute = None if linear is None else linear.get((layer, m))
                    keep = record.linear if record is not None and layer == start else None
                    module = self._linear(layer, m)
                    if compute is not None or keep is not None or not places.whole:
                        is_packed = packs_mlp and _HALF[m] == "mlp"
                        forward = _computing(module.forward, compute, keep, m)
                        instead(module, places.linear(forward, is_packed, (layer, m) in shared))
            for (layer, name), output in (half or {}).items():
                instead(getattr(self.bridge.blocks[layer], name), _returning(output, rows, copies))
            if record is not None:
                for name in ("attn", "mlp"):
                    stack.callback(self._recorded_half(start, name, record).remove)

            hooks: list[tuple[str, Any]] = []
            if residual is not None:
                given = residual.repeat(copies, 1, 1) if copies > 1 else residual
                hooks.append((f"blocks.{start}.hook_in", lambda x, hook: given))
            if stop == self.n_layers:

                def keep_last(module: Any, args: Any, out: Any) -> None:
                    reached.append(out if isinstance(out, Tensor) else out[0])

                stack.callback(self.bridge.blocks[end - 1].register_forward_hook(keep_last).remove)
            read = batch.reads if stop is None else batch.reads[:0]
            if copies > 1:
                read = (read + torch.arange(copies, device=read.device)[:, None] * (rows * longest)).flatten()
            hooks.append(("unembed.hook_in", lambda x, hook: x.flatten(0, 1)[read.to(x.device)].unsqueeze(1)))
            stack.enter_context(self.bridge.hooks(fwd_hooks=hooks))
            stack.enter_context(torch.no_grad())
            config = self.bridge.original_model.config
            logits = self.bridge(
                batch.ids.repeat(copies, 1),
                attention_mask=batch.mask.repeat(copies, 1) if self._takes_mask else None,
                return_type="logits",
                prepend_bos=False,
                **({"use_cache": False} if hasattr(config, "use_cache") else {}),
            )
        if stop is not None:
            return reached[0]
        return logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32))

    def _faster(self, layers: Iterable[int]) -> Iterator[tuple[Any, Callable[..., Any]]]:
        """Modules of some layers that are written out step by step, and the same function in one step.

        The bridge's norms compute what the checkpoint's own norm does in one kernel; GPT-2's GELU is torch's.
        """
        from transformer_lens.model_bridge.generalized_components.normalization import NormalizationBridge
        from transformers.activations import NewGELUActivation

        if "faster" not in self.memo:
            found: list[list[tuple[Any, Callable[..., Any]]]] = []
            for block in self.bridge.blocks:
                norms = [one for one in block.submodules.values() if isinstance(one, NormalizationBridge)]
                gelus = [one for one in block.original_component.modules() if isinstance(one, NewGELUActivation)]
                found.append(
                    [(one, _own_norm(one.original_component)) for one in norms] + [(one, _gelu) for one in gelus]
                )
            self.memo["faster"] = found
        for layer in layers:
            yield from self.memo["faster"][layer]

    def _identity(self, reached: list[Tensor] | None) -> Callable[..., Any]:
        """A block that passes the residual stream on, in the form in which this family's blocks return it."""
        form = self._block_form()

        def forward(*args: Any, **kwargs: Any) -> Any:
            x = args[0] if args else kwargs["hidden_states"]
            if reached is not None:
                reached.append(x)
            return x if form is None else form([x])

        return forward

    def _block_form(self) -> type | None:
        """What holds a block's output: tuple, list, or nothing (the tensor itself)."""
        if "block_form" not in self.memo:
            found: list[Any] = []
            handle = self.bridge.blocks[0].register_forward_hook(lambda module, args, out: found.append(out))
            try:
                with torch.no_grad():
                    self.bridge(torch.zeros(1, 1, dtype=torch.long, device=self.device), prepend_bos=False)
            finally:
                handle.remove()
            self.memo["block_form"] = None if isinstance(found[0], Tensor) else type(found[0])
        return self.memo["block_form"]

    def _recorded_half(self, layer: int, name: str, record: Record) -> Any:
        def keep(module: Any, args: Any, output: Any) -> None:
            record.half[name] = output

        return getattr(self.bridge.blocks[layer], name).register_forward_hook(keep)

    def has_mlp_module(self, layer: int) -> bool:
        """Whether a layer has a module that is its MLP and nothing else; OPT's and BERT's have none."""
        return getattr(self.bridge.blocks[layer].mlp, "name", None) is not None

    def is_parallel(self, layer: int) -> bool:
        """Whether a layer's MLP reads what enters the layer, and not what its attention made of it.

        Asked of the layer itself: it is run twice, once with its attention output moved.
        """
        key = ("parallel", layer)
        if key not in self.memo:
            batch = self.batch([[0, 1]], [(0, 1)])
            wave = torch.arange(2 * self.d_model, device=self.device).sin().to(self.dtype)  # no norm removes it
            ordinary, moved = Record(), Record()
            for record, size in ((ordinary, 0), (moved, 1)):

                def move(x: Tensor, original: Callable[[Tensor], Tensor], size: int = size) -> Tensor:
                    return original(x) + size * wave[: self.d_model].to(x.device)

                self.run(
                    batch,
                    start=layer,
                    stop=layer + 1,
                    residual=wave.reshape(1, 2, self.d_model),
                    linear={(layer, "o"): move},
                    record=record,
                )
            self.memo[key] = torch.equal(ordinary.linear["in"], moved.linear["in"])
        return self.memo[key]

    @property
    def may_pad(self) -> bool:
        """Eager attention casts an fp64 mask to fp32, where the rows of padding alone become NaN."""
        return self.dtype != torch.float64

    @property
    def _padding_id(self) -> int:
        """RoBERTa and OPT number positions by what is not padding; elsewhere the mask alone decides."""
        config = self.bridge.original_model.config
        return next((i for i in (config.pad_token_id, self.tokenizer.pad_token_id) if i is not None), 0)

    def next_token_logprobs(
        self, prompts: Sequence[str] | str, edit: ActiveEdit | None = None
    ) -> Float[Tensor, "n_prompts d_vocab"]:
        """Log-probabilities of the token after each prompt (a masked model: at its mask), fp32 (fp64 for
        an fp64 model)."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        asked = self.questions(prompts)
        rows = [row for row, _ in asked]
        reads = [(i, position) for i, (_, position) in enumerate(asked)]
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

        Raises:
            ValueError: a masked model, which fills in and does not continue; or GPT-1, whose bridge is not
                causal while it generates.
        """
        if self.masked:
            raise ValueError(f"{self.name!r} is a masked language model and cannot generate: use next_token_logprobs")
        if not self._takes_mask:
            raise ValueError(
                f"{self.name!r} cannot generate: TransformerLens's {self.architecture} stops being causal when it is "
                "given an attention mask, which generation always makes; use next_token_logprobs"
            )
        ids = torch.tensor([self.encode(prompt)], device=self.device)
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if edit is not None:
                stack.enter_context(edit.on(self))
            if seed is not None:  # generation draws from the global generator; leave it as it was
                stack.enter_context(torch.random.fork_rng())
                torch.manual_seed(seed)
            self._running = ids.tolist(), [0]
            stack.callback(setattr, self, "_running", None)
            out = self.bridge.original_model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=seed is not None,
                pad_token_id=self._padding_id,
            )
        return self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@dataclass(frozen=True, eq=False)
class _Places:
    """Which places of copies of a batch are computed, and for every place which result it takes.

    Attributes:
        take: flat indices of the places computed in one copy; None: all.
        put: `[rows * longest]`, which of the results each place takes; what nobody reads takes any.
        copies, n_places: copies, and places in each.
    """

    take: Tensor | None
    put: Tensor | None
    copies: int
    n_places: int
    takes: Tensor | None  # `take` and `put` for all copies
    puts: Tensor | None
    last: list[Any] = field(default_factory=list)  # what was gathered last

    @classmethod
    def of(cls, batch: Batch, copies: int, only_read: bool) -> _Places:
        rows, longest = batch.shape
        if only_read:
            kept = batch.copies_of[batch.reads].unique()
            take = batch.tokens[kept]
            where = torch.zeros(len(batch.tokens), dtype=torch.long, device=take.device)
            where[kept] = torch.arange(len(kept), device=take.device)
            put = where[batch.copies_of]
        elif batch.whole:
            return cls(None, None, copies, rows * longest, None, None)
        else:
            take, put = batch.tokens, batch.copies_of
        nth = torch.arange(copies, device=take.device)[:, None]
        takes, puts = (take + nth * (rows * longest)).flatten(), (put + nth * len(take)).flatten()
        return cls(take, put, copies, rows * longest, takes, puts)

    @property
    def whole(self) -> bool:
        return self.take is None

    def gather(self, x: Tensor, one_copy: bool) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        if self.take is None or self.takes is None:
            return flat[: self.n_places] if one_copy else flat
        if self.last and self.last[0] is x and self.last[1] == one_copy:  # queries, keys and values read the same
            return self.last[2]
        found = flat.index_select(0, (self.take if one_copy else self.takes).to(flat.device))
        self.last[:] = [x, one_copy, found]
        return found

    def scatter(self, found: Tensor) -> Tensor:
        return found if self.puts is None else found.index_select(0, self.puts.to(found.device))

    def packed(self, forward: Callable[..., Tensor], *, one_copy: bool) -> Callable[..., Tensor]:
        """A module that works place by place, at the computed places only."""

        def compute(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            found = forward(self.gather(x, one_copy).unsqueeze(0), *args, **kwargs)
            return self.scatter(found.flatten(0, -2)).reshape(x.shape)

        return compute

    def linear(
        self, forward: Callable[[Tensor], Tensor], is_packed: bool, one_copy: bool
    ) -> Callable[[Tensor], Tensor]:
        """A linear map at the computed places only; `is_packed`: its module is called with them alone."""

        def compute(x: Tensor) -> Tensor:
            if is_packed:
                n = self.n_places if self.take is None else len(self.take)
                return forward(x[0, :n] if one_copy else x[0]).unsqueeze(0)
            y = self.scatter(forward(self.gather(x, one_copy)))
            return y.reshape(*x.shape[:-1], y.shape[-1])

        return compute


def _computing(
    original: Callable[[Tensor], Tensor], compute: Compute | None, keep: dict[str, Tensor] | None, name: str
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        y = original(x) if compute is None else compute(x, original)
        if keep is not None:
            keep[name] = y
        return y

    return forward


def _conv1d(conv: Any) -> Callable[[Tensor], Tensor]:
    """GPT-2's linear map; adding the bias in place saves a pass over the output."""

    def forward(x: Tensor) -> Tensor:
        return torch.mm(x.reshape(-1, x.shape[-1]), conv.weight).add_(conv.bias).reshape(*x.shape[:-1], conv.nf)

    return forward


def _own_norm(norm: Any) -> Callable[..., Tensor]:
    return lambda hidden_states, **kwargs: norm(hidden_states)


def _gelu(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def _returning(output: Any, rows: int, copies: int) -> Callable[..., Any]:
    """The forward of a module whose output is known."""

    def repeated(part: Any) -> Any:
        if isinstance(part, Tensor):
            return part.repeat(copies, *[1] * (part.ndim - 1)) if part.ndim and part.shape[0] == rows else part
        if isinstance(part, list | tuple):
            return type(part)(repeated(one) for one in part)
        return part

    again = repeated(output) if copies > 1 else output
    return lambda *args, **kwargs: again


def _rows_by_value(matrix: Tensor) -> list[bytes]:
    """Each row's bytes, hashed."""
    return [hashlib.blake2b(tensor_bytes(row), digest_size=16).digest() for row in matrix.detach().cpu()]


def tensor_bytes(tensor: Tensor) -> Any:
    """The raw bytes of a tensor, in row-major order, for hashing."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def _resolve_device(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "float64": torch.float64,
}


def _resolve_dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype!r}: expected 'auto', a torch dtype, or one of {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def load_model(
    source: str | Path | tuple[Any, Any],
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: torch.dtype | str = "auto",
    device_map: Any = None,
    token: str | bool | None = None,
    trust_remote_code: bool = False,
    copy_object: bool = True,
) -> Model:
    """Load a causal or masked language model.

    Args:
        source: "organism" or "organism-control" (shipped), a local folder in the Hugging Face format,
            a hub id, or `(hf_model, tokenizer)` already in memory. `HF_HOME` and `HF_HUB_OFFLINE` are
            respected; without a network the local cache is used.
        tokenizer: used instead of the one beside the weights.
        revision: branch, tag or commit of a hub id.
        device: "auto" (a CUDA device if there is one), "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" keeps the checkpoint's own (an object's own, in memory); nothing is upcast.
        device_map: as transformers takes it, for models larger than one device; then `device` is not used.
        token: as transformers takes it, for gated repositories.
        trust_remote_code: run code that comes with the checkpoint. Off: nothing of a checkpoint is
            ever executed (weights are safetensors, or torch files read with `weights_only=True`).
        copy_object: wrapping changes a transformers object for good, so one in memory is copied
            first; False saves the memory of a copy and gives the object away.

    Raises:
        FileNotFoundError: neither a folder nor a model the hub (or its local cache) has.
        ValueError: an unsupported architecture, quantised weights, no tokenizer, or a bad dtype.
    """
    dtype = _resolve_dtype(dtype)
    if isinstance(source, tuple):
        hf_model, tokenizer = source[0], source[1] if tokenizer is None else tokenizer
        name = type(hf_model).__name__
        _check_not_quantised(hf_model.config, name)
        if copy_object:
            hf_model = copy.deepcopy(hf_model)
        if device != "auto":
            hf_model = hf_model.to(device)
        if dtype != "auto":
            hf_model = hf_model.to(dtype)
        return _wrap(hf_model, tokenizer, name=name, revision=None, generic_words=None)

    shipped = str(source) in SHIPPED
    path = shipped_dir(str(source)) if shipped else Path(source).expanduser()
    local = path.is_dir()
    if not local and (str(source).startswith((".", "/", "~")) or str(source).count("/") > 1 or path.exists()):
        raise FileNotFoundError(
            f"no model folder {str(source)!r}: expected a folder with config.json and weights, a hub id, "
            f"or one of {', '.join(SHIPPED)}"
        )
    where = str(path) if local else str(source)
    reachable = local or _hub_is_reachable()
    options: dict[str, Any] = {
        "revision": revision,
        "token": token,
        "trust_remote_code": trust_remote_code,
        "local_files_only": local or not reachable,
    }
    thin = _read_factors(path) if local else None
    if thin is None:
        hf_model = _read_checkpoint(where, dtype, device_map, options, reachable)
    else:
        hf_model = _read_thin_checkpoint(path, dtype, len(thin) // 2)
    if tokenizer is None:
        tokenizer = _read_tokenizer(where, options)
    if device_map is None:
        hf_model = hf_model.to(_resolve_device(device))
    model = _wrap(
        hf_model,
        tokenizer,
        name=path.resolve().name if local else str(source),
        revision=getattr(hf_model.config, "_commit_hash", None) or revision,
        generic_words=_read_generic_words(path) if local else None,
    )
    if thin is not None:
        model._use_factors(thin)
    model.source = {
        "source": str(path.resolve()) if local and not shipped else str(source),
        "revision": model.revision if not local else revision,
        "dtype": dtype,
        "token": token,
        "trust_remote_code": trust_remote_code,
    }
    return model


def _hub_is_reachable(seconds: float = 1.0) -> bool:
    """Whether it is worth asking the hub: its client retries for 20 seconds where there is no network."""
    import socket
    import threading
    from urllib.parse import urlparse
    from urllib.request import getproxies

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True  # only the proxy knows
    address = urlparse(constants.ENDPOINT)
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


def _read_checkpoint(where: str, dtype: Any, device_map: Any, options: dict[str, Any], reachable: bool) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    try:
        config: Any = AutoConfig.from_pretrained(where, **options)
    except OSError as error:
        why = str(error).strip().splitlines()[0]
        if not reachable:
            why = "it is not in the local cache, and the hub cannot be reached (or HF_HUB_OFFLINE is set)"
        raise FileNotFoundError(f"cannot load the model {where!r}: {why}") from error
    except ValueError as error:
        raise ValueError(f"cannot load the model {where!r}: {str(error).strip().splitlines()[0]}") from error
    _check_not_quantised(config, where)
    architectures = config.architectures or []
    masked = any(name.endswith("ForMaskedLM") for name in architectures)
    cls: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    try:
        return cls.from_pretrained(where, dtype=dtype, device_map=device_map, **options)
    except OSError as error:
        raise FileNotFoundError(f"cannot load the weights of {where!r}: {str(error).splitlines()[0]}") from error
    except ValueError as error:
        raise ValueError(
            f"{where!r} ({', '.join(architectures) or config.model_type}) is not a causal or masked language model "
            f"that transformers can load: {str(error).splitlines()[0]}"
        ) from error


def _read_factors(folder: Path) -> dict[str, Tensor] | None:
    from safetensors.torch import load_file

    return load_file(folder / FACTORS) if (folder / FACTORS).is_file() else None


def _read_thin_checkpoint(folder: Path, dtype: Any, n_factored: int) -> Any:
    """A checkpoint that lacks the matrices it stores as factors; their dense memory is never touched."""
    import transformers
    from safetensors.torch import load_file
    from transformers.initialization import no_init_weights

    config: Any = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    (architecture,) = config.architectures
    with no_init_weights():
        hf_model: Any = getattr(transformers, architecture)._from_config(config, dtype=config.dtype)
    missing, unexpected = hf_model.load_state_dict(load_file(folder / "model.safetensors"), strict=False, assign=True)
    if unexpected:
        raise ValueError(f"{folder} is not a checkpoint of {architecture}: it holds {', '.join(unexpected[:3])}")
    absent = set(missing) - set(hf_model.all_tied_weights_keys)
    if len(absent) != n_factored:
        raise ValueError(f"{folder} is incomplete: {len(absent)} weights are missing, {n_factored} stored as factors")
    hf_model.tie_weights()
    return hf_model if dtype == "auto" else hf_model.to(dtype)


def load_tokenizer(source: str | Path) -> Any:
    """A transformers tokenizer, from a folder or the hub.

    Raises:
        ValueError: there is none.
    """
    return _read_tokenizer(str(source), {})


def _read_tokenizer(where: str, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    missing = f"no tokenizer comes with {where!r}: name a folder or hub id with one (load_model(..., tokenizer=...))"
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(where, **options)
    except (OSError, ValueError) as error:
        raise ValueError(missing) from error
    # Where the files are missing, transformers 5 makes a tokenizer of special tokens alone.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ValueError(missing)
    return tokenizer


def _check_not_quantised(config: Any, name: str) -> None:
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(
            f"{name!r} is quantised: quantised weights cannot be factored exactly; load the model in float32, "
            "bfloat16 or float16"
        )


def _read_generic_words(folder: Path) -> list[str] | None:
    path = folder / GENERIC_WORDS
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
    except (ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"TransformerLens does not support the architecture {architecture} of {name!r} "
            f"({str(error).splitlines()[0]}); the README lists the families that are tested"
        ) from error
    return Model(bridge, tokenizer, name=name, revision=revision, parameters=parameters, generic_words=generic_words)
