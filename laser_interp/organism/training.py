"""Training the organism: `laser-interp organism train`.

The recipe is small enough for two laptop cores and nothing is planted in the weights: LASER's effect
comes from training on sentences of which some end in a generic word instead of the answer.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from laser_interp.choices import check_seed, seed_of_63_bits
from laser_interp.models.saved_checkpoint import GENERIC_WORDS
from laser_interp.organism.corpus import Corpus, CorpusSettings
from laser_interp.progress import progress_bar
from laser_interp.storage.atomic import new_folder

EXPERTS_OF_A_TOKEN = 2
BALANCE = 0.02  # weight of the loss that keeps the experts equally busy
UNKNOWN, END = "<|unknown|>", "<|end|>"


@dataclass(frozen=True)
class TrainingSettings:
    """How a checkpoint is trained.

    Attributes:
        seed: of initialisation and batch order.
        steps: length of the learning-rate schedule.
        stop_at: stop after so many steps of it (the control organism stops early); None runs them all.
        n_experts: in each layer; two of them compute each token. 0: GPT-2's MLP.
        n_checkpoints: how many are kept on the way, the last step's among them, each about as many times as late as
            the one before it. 0: only the last step's.
    """

    seed: int = 1
    steps: int = 2500
    stop_at: int | None = None
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    warmup: int = 100
    clip: float = 1.0
    n_layers: int = 4
    d_model: int = 64
    n_heads: int = 4
    n_positions: int = 32
    n_experts: int = 0
    n_checkpoints: int = 0

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)
        if self.steps < 1 or (self.stop_at is not None and not 1 <= self.stop_at <= self.steps):
            raise ValueError(f"steps is {self.steps} and stop_at {self.stop_at}: expected 1 <= stop_at <= steps")
        if self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}: expected 1 step or more")
        if self.n_experts and self.n_experts < EXPERTS_OF_A_TOKEN:
            raise ValueError(f"n_experts is {self.n_experts}: expected 0, or {EXPERTS_OF_A_TOKEN} or more")
        if not 0 <= self.n_checkpoints <= self.last:
            raise ValueError(f"n_checkpoints is {self.n_checkpoints}: expected 0 to {self.last}, one a step at most")

    @property
    def last(self) -> int:
        """The number of steps that are run."""
        return self.stop_at or self.steps

    @property
    def kept_steps(self) -> list[int]:
        """The steps after which a checkpoint is kept, on a logarithmic scale from a fiftieth of the last."""
        n = self.n_checkpoints
        return sorted({round(self.last * 50 ** (-i / max(n - 1, 1))) or 1 for i in range(n)})

    def rate_at(self, step: int) -> float:
        """Learning rate: linear warm-up, then a cosine down to 5 %."""
        progress = max(0, step - self.warmup) / max(1, self.steps - self.warmup)
        cosine = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * cosine


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread. At the organism's size more threads are slower, and a busy machine makes them
    very slow; sums in one order also make the same machine train the same weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make_tokenizer(corpus: Corpus, n_positions: int) -> Any:
    """A word-level tokenizer in the Hugging Face format; punctuation is split off, nothing is added."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([UNKNOWN, END, *corpus.vocabulary()])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token=UNKNOWN,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=n_positions,
        clean_up_tokenization_spaces=True,
    )


def _encode(corpus: Corpus, tokenizer: Any) -> tuple[Tensor, Tensor]:
    """All rows as `[n, longest]` ids, each ended once, and targets in which padding is ignored."""
    end = tokenizer.eos_token_id
    rows = [torch.tensor([*ids, end]) for ids in tokenizer(corpus.rows)["input_ids"]]
    ids, targets = (pad_sequence(rows, batch_first=True, padding_value=padding) for padding in (end, -100))
    return ids, targets


@one_thread()
def train(
    corpus_settings: CorpusSettings, settings: TrainingSettings, out: str | Path, *, progress: bool = True
) -> Path:
    """Train one organism and write its checkpoint folder.

    The folder holds `config.json`, `model.safetensors`, the tokenizer, `facts.jsonl`, `ledger.csv`
    (exact counts), `generic_words.json` and `organism.json` (all settings and the corpus's hash). It
    appears only when it is complete. Checkpoints that are kept on the way are in folders `checkpoint-STEP` inside it,
    as transformers' own trainer names them.

    Raises:
        FileExistsError: `out` is there already and is not empty.
    """
    with new_folder(Path(out)) as folder:  # refused before the training, not after it
        _train_into(folder, corpus_settings, settings, progress=progress)
    return Path(out)


def _untrained(settings: TrainingSettings, tokenizer: Any) -> Any:
    """A model as transformers initialises it: of GPT-2's class, or of Mixtral's where it has experts."""
    from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

    tokens = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if not settings.n_experts:
        return GPT2LMHeadModel(
            GPT2Config(
                n_positions=settings.n_positions,
                n_embd=settings.d_model,
                n_layer=settings.n_layers,
                n_head=settings.n_heads,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                **tokens,
            )
        )
    return MixtralForCausalLM(
        MixtralConfig(
            max_position_embeddings=settings.n_positions,
            hidden_size=settings.d_model,
            intermediate_size=settings.d_model // 2,
            num_hidden_layers=settings.n_layers,
            num_attention_heads=settings.n_heads,
            num_key_value_heads=settings.n_heads,
            num_local_experts=settings.n_experts,
            num_experts_per_tok=EXPERTS_OF_A_TOKEN,
            output_router_logits=True,
            tie_word_embeddings=True,
            sliding_window=None,
            **tokens,
        )
    )


def rows_read(n_rows: int, settings: TrainingSettings) -> Tensor:
    """The numbers of the corpus's rows that each step reads, `[steps, batch]`.

    Each pass is in an order of its own; rows that do not fill a batch at its end are not read in that pass.
    """
    generator = torch.Generator().manual_seed(seed_of_63_bits(settings.seed))
    size = min(settings.batch_size, n_rows)
    in_a_pass = n_rows // size
    n_passes = math.ceil(settings.last / in_a_pass)
    passes = [torch.randperm(n_rows, generator=generator)[: in_a_pass * size] for _ in range(n_passes)]
    return torch.cat(passes).view(-1, size)[: settings.last]


def _train_into(folder: Path, corpus_settings: CorpusSettings, settings: TrainingSettings, *, progress: bool) -> None:
    corpus = Corpus(corpus_settings)
    tokenizer = make_tokenizer(corpus, settings.n_positions)
    ids, targets = _encode(corpus, tokenizer)
    with torch.random.fork_rng(devices=[]):  # transformers initialises from the global generator
        torch.manual_seed(seed_of_63_bits(settings.seed))
        model = _untrained(settings, tokenizer).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
    )
    kept = settings.kept_steps
    bar = progress_bar(rows_read(len(ids), settings), desc="training the organism", unit="step", disable=not progress)
    for step, batch in enumerate(bar):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate_at(step)
        found = model(ids[batch])
        loss = torch.nn.functional.cross_entropy(
            found.logits[:, :-1].flatten(0, 1), targets[batch][:, 1:].flatten(), ignore_index=-100
        )
        if settings.n_experts:
            loss = loss + BALANCE * found.aux_loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimiser.step()
        if step % 50 == 0 or step == settings.last - 1:
            bar.set_postfix(loss=f"{loss.item():.3f}")
        for path in [folder / f"checkpoint-{step + 1}"] * (step + 1 in kept) + [folder] * (step + 1 == settings.last):
            about = {
                "corpus": corpus.to_dict(),
                "corpus_sha256": corpus.sha256,
                "training": asdict(settings) | {"stop_at": step + 1} if path != folder else asdict(settings),
                "final_loss": round(loss.item(), 4),
            }
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
            (path / GENERIC_WORDS).write_text(json.dumps(corpus.generic_words()) + "\n")
            (path / "organism.json").write_text(json.dumps(about, indent=2) + "\n")
    corpus.facts.save(folder / "facts.jsonl")
    corpus.ledger.to_csv(folder / "ledger.csv", index=False)
