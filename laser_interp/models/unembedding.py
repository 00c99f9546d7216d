"""Next-token logits, a block of the vocabulary after the other; nobody stores all of them.

The unembedding is the largest matrix of many models, and its logits take most memory: 1 MB a read for 262,144 tokens.
For few rows, torch multiplies it at half the rate of other products, because its weights do not stay in the processor's
cache. In blocks that do, the product is 1.2 to 2 times as fast for 16 to 150 rows (measured for 50,000 and 128,000
tokens, and widths of 576 to 4,096), and what is asked of a block finds it in the cache.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from laser_interp.models.bfloat16 import is_screened
from laser_interp.models.forward import score_dtype
from laser_interp.models.library_internals import swap_forward
from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.weights import derived

BLOCK = 2**19  # numbers of the weight that are multiplied at a time: 2 MB in fp32
IN_CACHE = 2**18  # logits that are looked at at a time: 1 MB in fp32


@dataclass(frozen=True)
class Logits:
    """Next-token logits of some reads.

    Attributes:
        x: what enters the unembedding; or, without a `weight`, the logits themselves.
        weight: `[d_vocab, d_model]`.
        bias: `[d_vocab]`, where there is one.
    """

    x: Float[Tensor, "reads width"]
    weight: Tensor | None = None
    bias: Tensor | None = None

    @property
    def d_vocab(self) -> int:
        return self.x.shape[1] if self.weight is None else self.weight.shape[0]

    def at(self, rows: Int[Tensor, " n"], tokens: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Single logits. A block may hold others in the last digit, because a product's order of sums varies."""
        if self.weight is None:
            return self.x[rows, tokens]
        distinct, place = tokens.unique(return_inverse=True)
        product = torch.mm(self.x, self.weight[distinct].T)
        if self.bias is not None:
            product += self.bias[distinct]
        return product[rows, place].to(score_dtype(product.dtype))

    def blocks(self) -> Iterator[tuple[int, Float[Tensor, "reads tokens"]]]:
        """The first token of each block and its logits, which may be changed, and hold until the next are asked for."""
        n, width = self.x.shape
        on_cpu = self.x.device.type == "cpu"
        step = max(BLOCK // width, 1)
        most = min(max(IN_CACHE // max(n, 1), step), self.d_vocab) if on_cpu else self.d_vocab
        if self.weight is None:
            for start in range(0, self.d_vocab, most):
                yield start, self.x[:, start : start + most].clone()
            return
        memory = self.x.new_empty(n * most)
        for start in range(0, self.d_vocab, most):
            stop = min(start + most, self.d_vocab)
            block = memory[: n * (stop - start)].view(n, stop - start)
            for first in range(start, stop, step):
                part = self.weight[first : min(first + step, stop)]
                torch.mm(self.x, part.T, out=block[:, first - start : first - start + len(part)])
            if self.bias is not None:
                block += self.bias[start:stop]
            yield start, block.to(score_dtype(block.dtype))


def multiplies_in_blocks(model: LoadedModel) -> bool:
    """Whether a model's logits are computed from what enters its unembedding: on a processor, in the model's own
    numbers, where the unembedding is a plain matrix and nothing follows it."""
    if model.device.type != "cpu" or type(_unembedding(model)) is not nn.Linear or is_screened(model):
        return False
    return derived(model, "nothing follows the unembedding", lambda: _nothing_follows(model))


def logits_of(model: LoadedModel, x: Float[Tensor, "reads d_model"]) -> Logits:
    """Logits from what enters the unembedding; or, where it is not multiplied in blocks, from themselves."""
    if not multiplies_in_blocks(model):
        return Logits(x)
    linear = _unembedding(model)
    bias = None if linear.bias is None else linear.bias.detach()
    return Logits(x, linear.weight.detach(), bias)


def without_unembedding(model: LoadedModel) -> Callable[[], None]:
    """Let a model return what enters its unembedding, until the function that this returns is called."""
    return swap_forward(_unembedding(model), lambda x: x)


def _unembedding(model: LoadedModel) -> Any:
    return model.bridge.unembed.original_component


def _nothing_follows(model: LoadedModel) -> bool:
    """Whether a model returns what its unembedding returns, and neither scales nor caps it."""
    generator = torch.Generator().manual_seed(0)
    large = 100 * torch.randn(1, 1, model.d_vocab, generator=generator, dtype=model.dtype)
    undo = swap_forward(_unembedding(model), lambda x: large)
    try:
        with torch.no_grad():
            token = torch.zeros(1, 1, dtype=torch.long)
            found = model.bridge(token, return_type="logits", prepend_bos=False)
    finally:
        undo()
    return found.dtype == large.dtype and torch.equal(found, large)
