"""The model families that are tested. A mixture of experts that is not among them is refused, although it may load."""

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Family:
    """A family that is compared with independently edited transformers models, at every layer and matrix.

    Attributes:
        name: as its users call it.
        transformers_class: the class of its checkpoints.
        note: what is different about it.
        experts: whether its mixtures of experts are supported.
    """

    name: str
    transformers_class: str
    note: str = ""
    experts: bool = False


with (files("laser_interp") / "models" / "families.csv").open(encoding="utf-8") as _table:
    FAMILIES = tuple(Family(*row[:3], experts=bool(row[3])) for row in [*csv.reader(_table)][1:])
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def is_tested(architecture: str) -> bool:
    """Whether a transformers class is in the table."""
    return architecture in {family.transformers_class for family in FAMILIES}


def refuse_experts(config: Any, name: str) -> None:
    """Refuse a mixture of experts of a family in which these are not tested: it may hold them in another form.

    Raises:
        ValueError: the config names more than one expert.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

    of_type = CLASSES.get(getattr(config, "model_type", None))
    if any(family.experts and family.transformers_class == of_type for family in FAMILIES):
        return
    for key in _EXPERTS:
        n = getattr(config, key, None)
        if isinstance(n, int) and n > 1:
            raise ValueError(
                f"{name!r} is a mixture of {n} experts of a family whose experts are not supported; `laser-interp "
                "models` lists those that are"
            )
