"""Compression: LASER's truncated matrices stored as two factors, which saves bytes, or exported as dense weights.

A matrix of rank k takes k · (d_in + d_out) numbers as factors and d_in · d_out in dense form, so factors save
bytes where k < d_in · d_out / (d_in + d_out). Matrices that a checkpoint stores fused with others (q, k and
v of GPT-2 and NeoX, all but o and out of Phi-3) are kept dense, and the report says so.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from laser_interp.edits.edit import Edit
from laser_interp.edits.export_check import same_as_edited
from laser_interp.edits.sites import Site
from laser_interp.edits.spectra import Spectrum
from laser_interp.models.checkpoints import FACTORS
from laser_interp.models.model import Model
from laser_interp.models.weights import factored_sites as sites_of_model
from laser_interp.models.weights import is_fused, stored_tensors


def saves_bytes(d_in: int, d_out: int, rank: int) -> bool:
    """Whether two factors of this rank are smaller than the dense matrix."""
    return rank * (d_in + d_out) < d_in * d_out


def compress(model: Model, edit: Edit, out: str | Path) -> pd.DataFrame:
    """Write the edited model as a checkpoint folder with factors, for `li.load_model`.

    It is loaded again and compared with the edited model before it is kept, which takes the memory of a second model.

    Returns:
        One row a site: `site, rank, stored` ("factors", or "dense" with the `why`), `bytes_before`,
        `bytes_after`; and a last row "total" for all parameters of the model.

    Raises:
        FileExistsError: `out` is there and not empty.
        ValueError: the edit was made from another model, acts at chosen positions or on one path, or adds a matrix to
            a weight, as some controls do.

    Example:
        >>> li.compress(model, laser, "smaller")
        >>> li.load_model("smaller")
    """
    factors: dict[tuple[int, str], tuple[Any, Any]] = {}
    dense: dict[tuple[int, str], Any] = {}
    rows = []
    edit.check(model)
    check_plain(edit)
    for site, part in sorted(edit.parts.items()):
        d_in, d_out = part.spectrum.U.shape[0], part.spectrum.Vh.shape[1]
        rank = int(part.gains.count_nonzero())
        size = model.weight(site.layer, site.matrix).element_size()
        why = ""
        if part.added is not None:
            raise ValueError(f"{site}: an edit that adds a matrix to the weight is not compressed")
        if not saves_bytes(d_in, d_out, rank):
            why = f"rank {rank} of {d_in} x {d_out} saves nothing"
        elif is_fused(model, site.layer, site.matrix):
            why = "the checkpoint stores it fused with other matrices"
        if why:
            dense[site.layer, site.matrix] = part.weight
        else:
            factors[site.layer, site.matrix] = factors_of(part.spectrum, part.gains)
        rows.append(
            {
                "site": str(site),
                "rank": rank,
                "stored": "dense" if why else "factors",
                "why": why,
                "bytes_before": sum(p.nbytes for p in stored_tensors(model, site.layer, site.matrix) if p.ndim == 2),
                "bytes_after": (d_in * d_out if why else rank * (d_in + d_out)) * size,
            }
        )
    model.save_checkpoint(out, dense=dense, factors=factors, verify=same_as_edited(model, edit))
    saved = sum(row["bytes_before"] - row["bytes_after"] for row in rows)
    rows.append(
        {
            "site": "total",
            "rank": None,
            "stored": "",
            "why": "",
            "bytes_before": model.n_bytes,
            "bytes_after": model.n_bytes - saved,
        }
    )
    return pd.DataFrame(rows)


def check_plain(edit: Edit) -> None:
    """Refuse an edit that cannot be written as a changed weight.

    Raises:
        ValueError: it acts at chosen positions, or on one path.
    """
    if not edit.is_plain:
        raise ValueError("an edit at chosen positions, or on one path, cannot be written as a changed weight")


def export_dense(model: Model, edit: Edit, out: str | Path) -> Path:
    """Write the edited model as a plain transformers checkpoint with dense weights, for `from_pretrained`.

    It is loaded again and compared with the edited model before it is kept, which takes the memory of a second model.

    Raises:
        FileExistsError: `out` is there and not empty.
        ValueError: the edit was made from another model.

    Example:
        >>> li.export_dense(model, laser, "dense")
    """
    edit.check(model)
    check_plain(edit)
    dense = {at: model.weight(*at) for at in sites_of_model(model)}
    dense |= {(site.layer, site.matrix): part.weight for site, part in edit.parts.items()}
    return model.save_checkpoint(out, dense=dense, verify=same_as_edited(model, edit))


def factors_of(
    spectrum: Spectrum, gains: Float[Tensor, " r"]
) -> tuple[Float[Tensor, "d_in k"], Float[Tensor, "k d_out"]]:
    """`U diag(S * gains) Vh` as two factors in fp64, of the k directions with a gain other than 0.

    The singular values are shared evenly between the two.
    """
    used = gains.nonzero().squeeze(1)
    scale = spectrum.S[used] * gains[used]
    root = scale.abs().sqrt()
    down = spectrum.U[:, used].double() * root
    up = (scale.sign() * root)[:, None] * spectrum.Vh[used].double()
    return down, up


_MEASURE = """
import json, sys
from pathlib import Path
import torch
import transformers, accelerate
import transformer_lens
import laser_interp as li
from laser_interp.models.forward import logits_at
li.load_model("organism", device="cpu").next_token_logprobs("The")
status = Path("/proc/self/status")

def peak(restart=False):
    if not status.is_file():  # no Linux: the highest ever, in kilobytes, on macOS in bytes
        if sys.platform == "win32":
            import psutil
            return psutil.Process().memory_info().peak_wset
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    if restart:
        Path("/proc/self/clear_refs").write_text("5")
    return int(status.read_text().split("VmHWM:")[1].split()[0])

before = peak(restart=True)
model = li.load_model(sys.argv[1], device="cpu")
ids = list(range(2, 10))
for _, logits in logits_at(model, [ids], [(0, 7)]):
    pass
print(json.dumps({"bytes": (peak() - before) * 1024}))
"""


def peak_memory(folder: str | Path) -> int:
    """Bytes of resident memory that loading a checkpoint on the CPU and one short forward pass take.

    It is measured in a separate process, without the memory that the libraries take before the model is loaded.

    Raises:
        RuntimeError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    if done.returncode != 0:
        raise RuntimeError(f"measuring {folder} failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(json.loads(done.stdout.strip().splitlines()[-1])["bytes"])


def factored_sites(folder: str | Path) -> tuple[Site, ...]:
    """The sites that a compressed checkpoint stores as factors; none for a plain one."""
    path = Path(folder) / FACTORS
    if not path.is_file():
        return ()
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        names = {name.rpartition(".")[0] for name in stored.keys()}  # noqa: SIM118 (no mapping)
    return tuple(sorted(Site.parse(name) for name in names))
