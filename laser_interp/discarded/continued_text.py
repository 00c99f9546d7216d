"""How the model goes on under each component, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from laser_interp.edits.edit import Edit
from laser_interp.models.model import Model


@dataclass(frozen=True)
class Continuations:
    """Continuations side by side.

    Attributes:
        frame: one row per (prompt, component): `prompt, component, text`.
    """

    frame: pd.DataFrame

    def __str__(self) -> str:
        width = max(map(len, self.frame["component"]))
        parts = []
        for prompt, rows in self.frame.groupby("prompt", sort=False):
            shown = (
                f"  {name:<{width}}  {text.strip()}" for name, text in zip(rows["component"], rows["text"], strict=True)
            )
            parts.append("\n".join([str(prompt), *shown]))
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        wide = self.frame.pivot(index="prompt", columns="component", values="text")
        return wide[list(dict.fromkeys(self.frame["component"]))].to_html()


def continuations(
    model: Model,
    prompts: Sequence[str] | str,
    edit: Edit,
    *,
    max_new_tokens: int = 20,
    alphas: Sequence[float] = (),
    seed: int | None = None,
) -> Continuations:
    """How the model goes on under each component: as trained, LASER, what it discards, and mixtures.

    Args:
        alphas: also show LASER with the discarded part added back, at these strengths.
        seed: None for the most probable continuation; otherwise sampled, from the same seed under each component.

    Raises:
        ValueError: no prompt, or a model that cannot generate.

    Example:
        >>> li.continuations(model, [facts.facts[0].prompt], laser, max_new_tokens=4)
    """
    runs: dict[str, Edit | None] = {"as trained": None, "LASER": edit, "discarded part": edit.discarded()}
    runs |= {f"LASER + {alpha:g} x discarded": edit.inject(alpha) for alpha in alphas}
    asked = [prompts] if isinstance(prompts, str) else list(prompts)
    if not asked:
        raise ValueError("there are no prompts: expected a text, or a list of at least one")
    rows = [
        {"prompt": prompt, "component": name, "text": model.generate(prompt, max_new_tokens, edit=component, seed=seed)}
        for prompt in asked
        for name, component in runs.items()
    ]
    return Continuations(pd.DataFrame(rows))
