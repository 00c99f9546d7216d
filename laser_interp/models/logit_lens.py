"""The logit lens: what the residual stream says along the layers, read by the model's own final norm and unembedding
(nostalgebraist, 2020)."""

from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.models.forward import forward
from laser_interp.models.hooks import hooked
from laser_interp.models.loaded_model import LoadedModel
from laser_interp.models.tokens import Read


def logprobs_along_layers(model: LoadedModel, read: Read, edit: Any = None) -> Float[Tensor, "n_streams d_vocab"]:
    """Log-probabilities of the next token, read off the residual stream before the first layer and after each one.

    The streams take the place of the last layer's outputs, so that all that the model itself has after its layers acts
    on them. The last row is what the model says.

    Args:
        read: token ids, and the position that is read.
        edit: acts while the model runs, through the network; None is the model as it is.
    """
    row, position = read
    streams: list[Tensor] = []

    def note(x: Tensor, hook: Any = None) -> None:
        streams.append(x[0, position])

    def put_in(block: Any, args: Any, output: Any) -> Any:
        x, *others = [output] if isinstance(output, Tensor) else output
        note(x)
        flat = x.flatten(0, 1).clone()
        flat[: len(streams)] = torch.stack([stream.to(x.device) for stream in streams])
        new = flat.view_as(x)
        return new if isinstance(output, Tensor) else type(output)([new, *others])

    at = [divmod(i, len(row)) for i in range(model.n_layers + 1)]  # the prompt runs as often as all streams need room
    copies = [row] * (at[-1][0] + 1)
    with ExitStack() as stack:
        if edit is not None:
            stack.enter_context(edit.on(model))
        stack.enter_context(hooked(model, [(f"blocks.{layer}.hook_in", note) for layer in range(model.n_layers)]))
        # GPT-1's blocks return lists, which the bridge's own hook does not see
        stack.callback(model.bridge.blocks[-1].register_forward_hook(put_in).remove)
        return forward(model, copies, [i for i, _ in at], [j for _, j in at]).log_softmax(-1)
