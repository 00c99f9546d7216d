"""The model `laser` of lm-evaluation-harness: an edited model, scored on any task of the harness.

    python -m laser_interp.lm_eval --model laser --model_args pretrained=organism,edit=laser.json --tasks …

takes every argument of `lm_eval`. The harness has no plug-ins, and knows only models that are registered in its own
process. This module therefore registers the model, and then starts the harness. In Python,
`import laser_interp.lm_eval` is enough before `lm_eval.simple_evaluate(model="laser", …)`. It needs the extra lm-eval.
"""

from contextlib import ExitStack
from typing import Any

import torch

from laser_interp.edits.edit_loading import read_edit
from laser_interp.extras import require
from laser_interp.models.loading import load_model

require("lm-eval", "lm_eval", what="scoring with lm-evaluation-harness")

import lm_eval.models  # noqa: E402, F401 (its own models are registered first)
from lm_eval.api.registry import register_model  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402


@register_model("laser")
class EditedModel(HFLM):
    """A model of `li.load_model` under an edit, as the harness takes it."""

    def __init__(
        self,
        pretrained: str,
        edit: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        revision: str | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            pretrained: what `li.load_model` loads.
            edit: the file of an edit, or text as in "27.in:0.01"; the model as trained if left out.
            device: where it runs; if left out, a CUDA device if there is one.
            options: those of the harness's model `hf`, for example `batch_size`.

        Raises:
            ValueError: a masked model, or an edit of other weights or at chosen positions.
        """
        if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
            device = "auto"  # the harness asks for cuda:0 where nothing was asked for
        model = load_model(pretrained, device=device, dtype=dtype, revision=revision)
        if model.masked:
            raise ValueError(f"{pretrained!r} is a masked language model: the harness scores causal ones")
        chosen = None if edit is None else read_edit(model, edit)
        if chosen is not None and not chosen.is_plain:
            raise ValueError("an edit at chosen positions, or on one path, cannot be scored on other prompts")
        hf_model: Any = model.hf_model
        super().__init__(pretrained=hf_model, tokenizer=model.tokenizer, **options)  # pyright: ignore[reportCallIssue]
        self._edited = ExitStack()  # the edit stays on for as long as the harness has this model
        if chosen is not None:
            self._edited.enter_context(chosen.on(model))


def main() -> None:
    """The harness's own command line, which then knows the model `laser`."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
