"""The model as a user sees it: what it is, its weights, what it says."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from laser_interp.choices import check_seed, seed_of_63_bits, whole_number
from laser_interp.models import saved_checkpoint, tokens
from laser_interp.models.forward import batches, logits_at, padded, padding_id, takes_mask
from laser_interp.models.in_use import running
from laser_interp.models.library_internals import generating_as
from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.weights import derived, stored_state, tensors_sha256
from laser_interp.storage.atomic import new_folder

Input = str | Sequence[str] | Int[Tensor, "n length"] | Int[Tensor, " length"]
GENERATED_TOKENS = 2048  # tokens of the prompts that are continued together


class Model(LoadedModel):
    """A trained transformer with named linear maps; made by `li.load_model`.

    Attributes:
        name: the hub id, the shipped name, or the folder's name.
        revision: the hub commit the weights came from, or None.
        architecture: the class of the transformers model.
        tokenizer: the Hugging Face tokenizer, used exactly as its own call tokenises.
        bridge: the TransformerLens bridge, for whatever this class does not offer. It takes text as well, tokenised as
            here, and edits that are on act in it too.
        n_layers, n_heads, d_model, d_mlp, d_vocab: sizes.
        max_positions: the longest input, in tokens, or None where there is no limit.
        matrices: the matrices of its layers, in the order `q k v o in gate out`, then those of other mixers than
            attention. In a hybrid, not every layer has every matrix: see `matrices_of(layer)` and `sites`.
        runs_in_parts: whether its layers can be run one by one, as the fast engine does; else full passes score it.
        masked: whether it is a masked language model (BERT, RoBERTa), which answers at the mask.
        generic_words: words that the corpus puts after prepositions, shipped beside the weights in
            `generic_words.json`; None where there is no such file.
        quantisation: how the weights were quantised before they were dequantised, as in "Q4_1 F32"; None where they
            were not.
        left_out: of a checkpoint for text and images, the weights that the language model does not have; they are not
            loaded.
        source: what `load_model` was called with, so that another process can load the same; None for an object in
            memory.

    Example:
        >>> model = li.load_model("organism")
        >>> model.generate("Mira Tolen was taught by", max_new_tokens=2)
    """

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"the model {self.name!r} cannot be copied or pickled, because its hooks are functions that belong to it: "
            "load it again with li.load_model"
        )

    def __repr__(self) -> str:
        was = f", dequantised from {self.quantisation}" if self.quantisation else ""
        was += f", {len(self.left_out)} weights left out" if self.left_out else ""
        return f"Model({self.name!r}, {self.n_layers} layers, matrices {' '.join(self.matrices)}, {self.dtype}{was})"

    @property
    def weights_sha256(self) -> str:
        """Hash of all parameters with their names, dtypes and shapes."""
        stored = stored_state(self)
        return derived(self, "weights_sha256", lambda: tensors_sha256(stored), of=list(stored.values()))

    @property
    def hf_model(self) -> Any:
        """The transformers model inside the bridge; edits that are on act in it too."""
        return self.bridge.original_model

    def weights_changed(self) -> None:
        """Forget everything that was computed from the weights.

        Call it after a change through `.data` or numpy, which torch does not count. Other changes in place are noticed
        without it.
        """
        self._state.memo.clear()

    def embedding(self) -> Float[Tensor, "d_vocab d_embedding"]:
        """The input embedding, one row a token."""
        return self.bridge.original_model.get_input_embeddings().weight.detach()

    def unembedding(self) -> Float[Tensor, "d_vocab d_model"]:
        """The output embedding, one row a token."""
        return self.bridge.original_model.get_output_embeddings().weight.detach()

    def encode(self, prompt: str) -> list[int]:
        """Token ids as the tokenizer's own call gives them, its special tokens included.

        Raises:
            ValueError: the prompt has no tokens, or more than the model has positions.
        """
        return tokens.encode_all(self, [prompt])[0]

    def decode(self, ids: int | Sequence[int]) -> str:
        """Text of one token or several."""
        return self.tokenizer.decode([ids] if isinstance(ids, int) else list(ids))

    def next_token_logprobs(self, prompts: Sequence[str] | str, edit: Any = None) -> Float[Tensor, "n_prompts d_vocab"]:
        """Log-probabilities of the token after each prompt (a masked model: at its mask).

        Args:
            prompts: one text or several.
            edit: acts while the model runs; None is the model as it is.

        Returns:
            Natural logarithms in fp32 (fp64 for an fp64 model), one row a prompt.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise ValueError("no prompts given: expected at least one")
        asked = tokens.questions(self, prompts)
        rows = [row for row, _ in asked]
        reads = [(i, position) for i, (_, position) in enumerate(asked)]
        parts, order = [], []
        with edit.on(self) if edit is not None else nullcontext():
            for indices, logits in logits_at(self, rows, reads):
                order += indices
                parts.append(logits.log_softmax(-1))
        logprobs = torch.cat(parts)
        return logprobs[torch.tensor(order).argsort().to(logprobs.device)]

    def to_tokens(self, texts: str | Sequence[str]) -> Int[Tensor, "n length"]:
        """Token ids of texts, as the tokenizer's own call gives them, with its special tokens, on the model's device.

        Shorter texts are padded at their end.
        """
        return padded(self, _token_rows(self, texts))[0].to(self.device)

    @property
    def cfg(self) -> Any:
        """TransformerLens's config of the model."""
        return self.bridge.cfg

    def to_str_tokens(self, text: str) -> list[str]:
        """The text of each token of a text, as TransformerLens gives it."""
        return [self.decode(token) for token in self.encode(text)]

    def to_single_token(self, text: str) -> int:
        """The token that is the whole text, without special tokens.

        Raises:
            ValueError: the text is no token or several.

        Example:
            >>> model.to_single_token(" Paris")  # doctest: +SKIP
        """
        if not isinstance(text, str):
            raise ValueError(f"the text is {text!r}: expected a string")
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            pieces = [self.decode(i) for i in ids]
            raise ValueError(f"{text!r} is {len(ids)} tokens of {self.name!r} ({pieces}): expected one")
        return int(ids[0])

    def __getattr__(self, name: str) -> Any:
        """Say where TransformerLens has what is asked for."""
        bridge = None if name.startswith("_") else self.__dict__.get("bridge")
        if bridge is not None and (hasattr(type(bridge), name) or hasattr(bridge, name)):
            raise AttributeError(f"a model of li.load_model has no {name}: use model.bridge.{name}")
        raise AttributeError(f"a model of li.load_model has no {name}")

    def __call__(self, input: Input, **options: Any) -> Any:
        """The model's output at every position, as TransformerLens gives it, with whatever edits are on.

        Args:
            input: a text, several, or token ids as `to_tokens` gives them.
            options: of the bridge's own call: `return_type` ("logits", "loss", "both"), `stop_at_layer`, and so on.

        Example:
            >>> with li.laser(model, "3.in", rho=0.05).on(model):
            ...     logits = model("Mira Tolen was taught by")  # [1, n_tokens, d_vocab]
        """
        return self._run("__call__", input, options)

    def _run(self, method: str, input: Input, options: dict[str, Any]) -> Any:
        """Call a method of the bridge, so that edits at chosen positions know which tokens it runs on."""
        rows = _token_rows(self, input)
        ids, mask, starts = padded(self, rows)
        if not mask.all() and takes_mask(self):
            options = {"attention_mask": mask.to(self.device)} | options
        with running(self, rows, starts):
            return getattr(self.bridge, method)(ids.to(self.device), prepend_bos=False, **options)

    def run_with_cache(self, input: Input, **options: Any) -> tuple[Any, Any]:
        """The output, and TransformerLens's cache of the activations, with whatever edits are on.

        Args:
            input: a text, several, or token ids.
            options: of the bridge's own method, such as `names_filter`.

        Example:
            >>> logits, cache = model.run_with_cache("Mira Tolen was taught by")
            >>> cache["blocks.0.attn.hook_pattern"].shape
        """
        return self._run("run_with_cache", input, options)

    def run_with_hooks(self, input: Input, **options: Any) -> Any:
        """The output, with the caller's own hooks and whatever edits are on.

        Args:
            input: a text, several, or token ids.
            options: of the bridge's own method: `fwd_hooks=[(name, function)]`, and so on.
        """
        return self._run("run_with_hooks", input, options)

    def generate(
        self,
        prompt: str | list[str] | tuple[str, ...],
        max_new_tokens: int = 20,
        *,
        edit: Any = None,
        seed: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Any:
        """The text with which the model continues a prompt, without the prompt itself.

        Only these arguments say how it is chosen: what the checkpoint's own generation config says, such as a penalty
        for repetition, is left out, but for the tokens that end a text.

        Args:
            prompt: a text, or several, which run together in batches; then a list of texts is returned.
            max_new_tokens: the longest continuation, in tokens. A text ends before that where the model's positions do.
            edit: acts while the model runs; None is the model as it is.
            seed: None takes the most probable token at each step; a number samples from this seed.
            temperature: for sampling; below 1, probable tokens become more probable.
            top_k: sample from this many of the most probable tokens only.
            top_p: sample from the fewest tokens whose probabilities reach this sum.

        Raises:
            ValueError: no prompt, or one as long as the model's positions; sampling options without a seed, or out of
                range; a masked model, which cannot continue a text; or GPT-1, whose bridge is not causal while it
                generates.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts or not all(isinstance(text, str) for text in prompts):
            raise ValueError(f"the prompts are {prompts!r}: expected a text, or a list of at least one")
        whole_number("max_new_tokens", max_new_tokens, at_least=1)
        if seed is not None:
            check_seed("seed", seed)
        if seed is None and (temperature, top_k, top_p) != (1.0, None, None):
            raise ValueError("temperature, top_k and top_p are for sampling, and there is no seed: expected seed=0")
        if not temperature > 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
            raise ValueError(
                f"temperature={temperature}, top_k={top_k}, top_p={top_p}: expected a temperature above 0, a whole "
                "number of 1 or more, and a probability in (0, 1]"
            )
        if self.masked:
            raise ValueError(f"{self.name!r} is a masked language model and cannot generate: use next_token_logprobs")
        if not takes_mask(self):
            raise ValueError(
                f"{self.name!r} cannot generate: TransformerLens's {self.architecture} stops being causal when it is "
                "given an attention mask, which generation always makes; use next_token_logprobs"
            )
        rows = [self.encode(text) for text in prompts]
        room = [min(max_new_tokens, (self.max_positions or math.inf) - len(row)) for row in rows]
        if min(room) < 1:
            raise ValueError(
                f"{prompts[room.index(min(room))][:60]!r} fills all {self.max_positions} positions of {self.name!r}: "
                "shorten it"
            )
        sampling = {"temperature": temperature, "top_k": top_k or 0, "top_p": top_p or 1.0}
        texts = [""] * len(rows)
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if edit is not None:
                stack.enter_context(edit.on(self))
            if seed is not None:  # generation draws from the global generator; leave it as it was
                stack.enter_context(torch.random.fork_rng())
                torch.manual_seed(seed_of_63_bits(seed))
            config = stack.enter_context(
                generating_as(
                    self.bridge.original_model,
                    max_new_tokens=max_new_tokens,
                    do_sample=seed is not None,
                    pad_token_id=padding_id(self),
                    **({} if seed is None else sampling),
                )
            )
            for most in sorted(set(room)):
                config.max_new_tokens = most
                alike = [i for i, own in enumerate(room) if own == most]
                for batch in batches(self, rows, alike, GENERATED_TOKENS):
                    ids, mask, starts = padded(self, [rows[i] for i in batch], "left")
                    with running(self, [rows[i] for i in batch], starts, generating=True):
                        continued = self.bridge.original_model.generate(
                            ids.to(self.device), attention_mask=mask.to(self.device), generation_config=config
                        )
                    for i, row in zip(batch, continued[:, ids.shape[1] :].tolist(), strict=True):
                        end = next((n for n, token in enumerate(row, 1) if token in (config.eos_token_id or ())), None)
                        texts[i] = self.tokenizer.decode(row[:end], skip_special_tokens=True)  # padding follows its end
        return texts[0] if isinstance(prompt, str) else texts

    def save_checkpoint(
        self,
        out: str | Path,
        *,
        dense: Mapping[tuple[int, str], Tensor] | None = None,
        verify: Callable[[Path], None] | None = None,
    ) -> Path:
        """Write the model as a Hugging Face checkpoint, with some matrices replaced.

        Args:
            out: folder; it appears only when it is complete.
            dense: (layer, matrix) -> new weight `[d_in, d_out]`.
            verify: is called with the complete folder before it gets its name; if it raises, nothing is kept.

        Raises:
            FileExistsError: `out` exists and is not empty.
        """
        try:
            with new_folder(Path(out)) as folder:
                saved_checkpoint.write(self, folder, dense or {})
                if verify is not None:
                    verify(folder)
        except Exception as error:  # safetensors raises bare ones at a full disk
            if type(error) is not Exception and type(error).__module__.partition(".")[0] != "safetensors":
                raise
            raise OSError(
                f"{out} could not be written ({error}): no part of it was kept; free some disk space and try again"
            ) from error
        return Path(out)


def _token_rows(model: Model, input: Input) -> list[list[int]]:
    """Token ids of texts, or of a table of them.

    Raises:
        ValueError: no text, or tokens that are no table of whole numbers.
    """
    if isinstance(input, Tensor):
        if input.dtype.is_floating_point or input.ndim not in (1, 2) or input.numel() == 0:
            raise ValueError(
                f"the input is a tensor of {input.dtype} with the shape {list(input.shape)}: expected texts, or token "
                "ids [n, length] as model.to_tokens gives them"
            )
        rows = torch.atleast_2d(input).tolist()
        if not model.masked:  # what follows a token does not change it
            return rows
        padding = padding_id(model)
        return [row[: max((n for n, token in enumerate(row, 1) if token != padding), default=1)] for row in rows]
    texts = [input] if isinstance(input, str) else list(input)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"the input is {input!r}: expected texts, or token ids as model.to_tokens gives them")
    return tokens.encode_all(model, texts)
