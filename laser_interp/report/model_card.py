"""The model card of an exported edit: what was changed, how to load it, and what a study found."""

import html
import json
from pathlib import Path
from typing import Literal

from laser_interp.choices import check_choice
from laser_interp.edits.edit import Edit
from laser_interp.models.model import Model
from laser_interp.storage.atomic import write_text
from laser_interp.storage.run_folder import FIGURES_LINE, REPORT

CARD = "README.md"
Form = Literal["dense", "adapter"]

_LOAD = {
    "dense": (
        'from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained("{folder}")'
    ),
    "adapter": (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        'model = AutoModelForCausalLM.from_pretrained("{base}")\n'
        'model = PeftModel.from_pretrained(model, "{folder}")'
    ),
}
_LIBRARY = {"dense": "transformers", "adapter": "peft"}
_WHAT = {
    "dense": "The edited matrices are stored as dense weights, which transformers loads without laser-interp.",
    "adapter": "The difference between the edited and the trained weights is stored as a LoRA adapter for PEFT.",
}


def write_model_card(model: Model, edit: Edit, folder: str | Path, form: Form, run: str | Path | None = None) -> Path:
    """Write the card as `README.md` into the folder of an export.

    Args:
        form: how the edit was exported.
        run: folder of a study, whose report the card quotes. With None the card says that nothing was measured.

    Raises:
        ValueError: no such form.
        FileNotFoundError: the run has no report.

    Example:
        >>> li.export_dense(model, edit, "edited")
        >>> li.write_model_card(model, edit, "edited", "dense")
    """
    check_choice("form", form, Form)
    base, name = model.public_name, html.escape(model.name)
    folder = Path(folder)
    lines = [
        "---",
        f"base_model: {json.dumps(base)}",  # JSON is YAML, whatever the name holds
        f"library_name: {_LIBRARY[form]}",
        "tags: [laser, low-rank, interpretability]",
        "---",
        "",
        f"# {name}, edited by LASER",
        "",
        "Some weight matrices of this model were replaced by a part of their singular value decomposition (LASER, "
        f"Sharma, Ash & Misra 2023, arXiv 2312.13558). {_WHAT[form]} Nothing was trained.",
        "",
        "| matrix | directions kept | change of its squared norm |",
        "|---|---|---|",
        *(
            f"| {site} | {int(part.gains.count_nonzero())} of {part.spectrum.max_rank} | {part.removed_energy:.1%} |"
            for site, part in sorted(edit.parts.items())
        ),
        "",
        f"The model as trained is `{html.escape(base)}`; the hash of its weights is `{model.weights_sha256}`."
        + (f" Its weights were dequantised from {model.quantisation}." if model.quantisation else ""),
        "",
        "## Load it",
        "",
        "```python",
        _LOAD[form].format(folder=json.dumps(folder.name)[1:-1], base=json.dumps(base)[1:-1]),
        "```",
        "",
        "## What was found",
        "",
        "Nothing was measured for this card. `laser-interp study` measures an edit and its controls. If you export "
        "the edit.json of a study, the card quotes the study's report."
        if run is None
        else _report(Path(run)),
    ]
    return write_text("\n".join(lines).rstrip() + "\n", folder / CARD)


def run_of(edit: str | Path) -> Path | None:
    """The folder of the study that wrote an edit's file; None where no report lies beside the file."""
    path = Path(edit)
    return path.parent if path.suffix == ".json" and (path.parent / REPORT).is_file() else None


def _report(run: Path) -> str:
    """A study's report without its list of figures, its headings two levels down."""
    try:
        text = (run / REPORT).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{run} holds no {REPORT}: expected the folder of a study") from None
    text = text.partition(f"\n{FIGURES_LINE}")[0]
    return "\n".join(f"##{line}" if line.startswith("#") else line for line in text.splitlines())
