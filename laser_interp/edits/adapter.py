"""An edit as a PEFT adapter: the difference between the edited and the trained weight, as two LoRA factors.

The part that LASER discards is a matrix whose rank is the number of removed directions. A LoRA adapter (Hu et al. 2021)
adds a product of two factors to a weight, so the negative of this part is an adapter of that rank. An edit that keeps
few directions gives a large adapter: the table of `export_adapter` compares its size with that of the dense weight.
"""

import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.edit import Edit
from laser_interp.edits.export import check_plain
from laser_interp.edits.site_edit import SiteEdit
from laser_interp.extras import require
from laser_interp.models.experts import ROUTER
from laser_interp.models.model import Model
from laser_interp.models.weights import stored_at, stored_state
from laser_interp.storage.atomic import new_folder

_BYTES = 4  # of a number: adapters are stored in float32
SERVED_RANK = 512  # the largest that vLLM takes


def export_adapter(model: Model, edit: Edit, out: str | Path) -> pd.DataFrame:
    """Write an edit as a LoRA adapter, for `peft.PeftModel.from_pretrained` on the model as trained.

    Args:
        out: folder; it appears only when it is complete.

    Returns:
        One row a site: `site, module, rank` (of the difference, and so of the adapter), `bytes_adapter`, and
        `bytes_dense` of the whole weight in float32.

    Raises:
        ModuleNotFoundError: peft is not installed.
        FileExistsError: `out` is there and not empty.
        ValueError: the edit was made from another model; it acts at chosen positions or on one path; or it changes
            nothing.

    Example:
        >>> li.export_adapter(model, li.laser(model, "3.in", rho=0.9), "adapter")
    """
    require("peft", "peft", what="a LoRA adapter")
    edit.check(model)
    check_plain(edit)
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    rows, transposed = [], set()
    for site, part in sorted(edit.parts.items()):
        down, up = difference(part)
        if down.shape[1] == 0:
            continue
        at = stored_at(model, site.layer, site.matrix)
        if model.maps[site.layer, site.matrix].of_mixture is not None:
            what = "the router" if site.matrix == ROUTER else "one expert"
            raise ValueError(f"{site} is {what} of a mixture, which no adapter of peft holds: export the model dense")
        transposed.add(at.transposed)
        module = at.name.removesuffix(".weight")
        stored = at.rows(stored_state(model)[at.name])  # of all matrices that the checkpoint fuses
        lora_b = torch.zeros(len(stored), down.shape[1])
        lora_b[at.index] = up.T.float().cpu()
        parts.setdefault(module, []).append((down.T.float().cpu(), lora_b))
        rows.append(
            {
                "site": str(site),
                "module": module,
                "rank": down.shape[1],
                "bytes_adapter": down.shape[1] * (down.shape[0] + len(stored)) * _BYTES,
                "bytes_dense": stored.numel() * _BYTES,
            }
        )
    if not parts:
        raise ValueError("this edit changes no weight: there is nothing to write as an adapter")
    with new_folder(Path(out)) as folder:
        _write(model, folder, parts, transposed == {True})
        _verify(model, edit, folder)
    table = pd.DataFrame(rows)
    largest = int(table.groupby("module")["rank"].sum().max())
    if largest > SERVED_RANK:
        warnings.warn(
            f"the adapter has rank {largest}, and vLLM serves adapters of at most {SERVED_RANK}: load it with peft, or "
            "export the model dense",
            stacklevel=2,
        )
    return table


def _verify(model: Model, edit: Edit, folder: Path) -> None:
    """Read the adapter again, and refuse it where the weights that it makes differ from the edited ones."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    for site, part in edit.parts.items():
        at = stored_at(model, site.layer, site.matrix)
        module = f"base_model.model.{at.name.removesuffix('.weight')}"
        change = part.weight - model.weight(site.layer, site.matrix).cpu().double()
        if f"{module}.lora_A.weight" in tensors:
            lora_a, lora_b = (tensors[f"{module}.lora_{side}.weight"].double() for side in "AB")
            change -= (lora_b[at.index] @ lora_a).T
        if not bool(change.norm() <= 1e-4 * part.spectrum.S.norm()):
            raise ValueError(
                f"the adapter was read again and does not change {site} as the edit does: please report this"
            )


def difference(part: SiteEdit) -> tuple[Float[Tensor, "d_in n"], Float[Tensor, "n d_out"]]:
    """Factors of the edited weight minus the weight, in fp64: one direction for each gain other than 1.

    The singular values are shared evenly between the two.
    """
    spectrum, gains = part.spectrum, part.gains - 1
    used = gains.nonzero().squeeze(1)
    scale = spectrum.S[used] * gains[used]
    root = scale.abs().sqrt()
    down = spectrum.U[:, used].double() * root
    up = (scale.sign() * root)[:, None] * spectrum.Vh[used].double()
    if part.added is not None:
        down = torch.cat([down, part.added[0].double()], dim=1)
        up = torch.cat([up, part.added[1].double()], dim=0)
    return down, up


def _write(model: Model, folder: Path, parts: dict[str, list[tuple[Tensor, Tensor]]], transposed: bool) -> None:
    from peft import LoraConfig
    from safetensors.torch import save_file

    tensors, ranks = {}, {}
    for module, factors in parts.items():
        # Several matrices that are stored as one add up in one adapter
        lora_a, lora_b = torch.cat([a for a, _ in factors]), torch.cat([b for _, b in factors], dim=1)
        tensors[f"base_model.model.{module}.lora_A.weight"] = lora_a.contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = lora_b.contiguous()
        ranks[module] = len(lora_a)
    largest = max(ranks.values())
    config: Any = LoraConfig(
        r=largest,
        lora_alpha=largest,  # a scale of 1
        rank_pattern=dict(ranks),
        alpha_pattern=dict(ranks),
        target_modules=sorted(ranks),
        fan_in_fan_out=transposed,
        bias="none",
        inference_mode=True,
        base_model_name_or_path=model.public_name,
    )
    config.save_pretrained(folder)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
