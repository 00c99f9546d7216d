"""One pass over the vocabulary: all that scores need of next-token logits, from each block while it is in the cache."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from laser_interp.models.unembedding import Logits


@dataclass(frozen=True)
class LogitQuery:
    """What is looked for in the logits of some reads.

    Attributes:
        rows, tokens: single logits.
        ranked_rows, ranked_tokens: single logits that are compared with all others of their read.
        columns: tokens whose logits are wanted for every read.
        top_k: how many of the most probable tokens are wanted.
    """

    rows: Int[Tensor, " n"]
    tokens: Int[Tensor, " n"]
    ranked_rows: Int[Tensor, " ranked"]
    ranked_tokens: Int[Tensor, " ranked"]
    columns: Int[Tensor, " columns"]
    top_k: int = 0


@dataclass(frozen=True)
class LogitStatistics:
    """What one pass over the vocabulary found.

    Attributes:
        norm: the log of each read's sum of exponentials.
        top, highest: the token with the highest logit, and that logit.
        values: the single logits.
        ranked: the single logits that are compared, each with how many logits of its read are `below` it, and with the
            highest of all others.
        columns: `[reads, columns]`.
        most, most_probable: `[reads, top_k]`, logits and tokens, the highest first.
    """

    norm: Float[Tensor, " reads"]
    top: Int[Tensor, " reads"]
    highest: Float[Tensor, " reads"]
    values: Float[Tensor, " n"]
    ranked: Float[Tensor, " ranked"]
    below: Int[Tensor, " ranked"]
    others: Float[Tensor, " ranked"]
    columns: Float[Tensor, "reads columns"]
    most: Float[Tensor, "reads top_k"]
    most_probable: Int[Tensor, "reads top_k"]


class _ByToken:
    """Tokens in order, so that those of a block are a slice of them."""

    def __init__(self, tokens: Tensor) -> None:
        self.order = tokens.argsort(stable=True)
        self._sorted = tokens[self.order].cpu().numpy()

    def within(self, start: int, stop: int) -> Tensor:
        """Which of the tokens lie in a block."""
        first, last = np.searchsorted(self._sorted, [start, stop])
        return self.order[first:last]


def logit_statistics(logits: Logits, asked: LogitQuery) -> LogitStatistics:
    """Look at each block of the vocabulary once.

    The logits that are compared are computed first, and put into their blocks, so that each is as large as itself.
    """
    n, device = logits.x.shape[0], logits.x.device
    ranked = logits.at(asked.ranked_rows, asked.ranked_tokens)
    kind = {"dtype": ranked.dtype, "device": device}
    every_read = torch.equal(asked.ranked_rows, torch.arange(n, device=device))
    values, columns = torch.empty(len(asked.rows), **kind), torch.empty(n, len(asked.columns), **kind)
    highest, others = torch.full((n,), -torch.inf, **kind), torch.full((len(ranked),), -torch.inf, **kind)
    below = torch.zeros(len(ranked), **kind)  # exact up to 16 million tokens
    total = torch.zeros(n, device=device, dtype=torch.float64 if device.type == "cpu" else ranked.dtype)
    top = torch.zeros(n, device=device, dtype=torch.long)
    most, most_probable = torch.empty(n, 0, **kind), torch.empty(n, 0, device=device, dtype=torch.long)
    of_single, of_ranked, of_columns = map(_ByToken, (asked.tokens, asked.ranked_tokens, asked.columns))
    memory = torch.empty(0, **kind)
    for start, block in logits.blocks():
        stop = start + block.shape[1]
        here = of_ranked.within(start, stop)
        at, own = asked.ranked_rows[here], asked.ranked_tokens[here] - start
        block[at, own] = ranked[here]
        if len(found := of_single.within(start, stop)):
            values[found] = block[asked.rows[found], asked.tokens[found] - start]
        if len(found := of_columns.within(start, stop)):
            columns[:, found] = block[:, asked.columns[found] - start]
        if asked.top_k:
            known = torch.cat([most, block], 1).topk(min(asked.top_k, most.shape[1] + block.shape[1]))
            tokens = torch.arange(start, stop, device=device).expand(n, -1)
            most, most_probable = known.values, torch.cat([most_probable, tokens], 1).gather(1, known.indices)

        before, largest = highest, block.amax(-1)
        highest = torch.maximum(before, largest)  # NaN stays
        rise = ((largest > before) | (largest.isnan() & ~before.isnan())).nonzero()[:, 0]
        top[rise] = start + block[rise].argmax(-1)
        if memory.numel() < max(n, len(ranked)) * block.shape[1]:
            memory = torch.empty(max(n, len(ranked)) * block.shape[1], **kind)
        shift = torch.where(highest.isfinite(), highest, 0)
        scratch = memory[: block.numel()].view_as(block)
        torch.sub(block, shift[:, None], out=scratch).exp_()
        total = total * (torch.where(before.isfinite(), before, shift) - shift).to(total).exp() + scratch.sum(-1)

        compared = block if every_read else block[asked.ranked_rows]
        scratch = memory[: compared.numel()].view_as(compared)
        below += torch.lt(compared, ranked[:, None], out=scratch).sum(-1)
        largest = largest[asked.ranked_rows]
        if len(here):
            without = block[at]
            without[torch.arange(len(here), device=device), own] = -torch.inf
            largest[here] = without.amax(-1)
        others = torch.maximum(others, largest)
    norm = total.log().to(highest.dtype) + torch.where(highest.isfinite(), highest, 0)
    return LogitStatistics(norm, top, highest, values, ranked, below.long(), others, columns, most, most_probable)
