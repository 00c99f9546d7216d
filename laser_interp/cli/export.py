"""`laser-interp export`."""

from pathlib import Path
from typing import Any

from laser_interp.cli.options import Flag, ModelOptions, Output


def export(*, model: ModelOptions, edit: str, out: Path, adapter: Flag = False, output: Output = Output()) -> None:
    """Save an edited model as a plain transformers checkpoint, or its edit as an adapter.

    It also writes a model card (README.md), which quotes the study's report if the edit is a study's edit.json.

    For example: laser-interp export --model organism --edit 3.in:0.05 --out edited

    Args:
        edit: SITE:RHO, SITE:rank=K or SITE:rate=R, as in 27.in:0.01, or the file of an edit (.json). Join several
            with +; *.mlp:0.1 edits all layers.
        out: Folder for the checkpoint; it must not exist.
        adapter: Write the difference as a LoRA adapter for PEFT instead.
    """
    from laser_interp.edits.adapter import export_adapter
    from laser_interp.edits.edit_loading import read_edit
    from laser_interp.edits.export import export_dense
    from laser_interp.extras import require
    from laser_interp.report.model_card import Form, run_of, write_model_card

    if adapter:
        require("peft", "peft", what="a LoRA adapter")  # before the model is loaded, not after it
    form: Form = "adapter" if adapter else "dense"
    loaded = model.load()
    laser = read_edit(loaded, edit)
    result: dict[str, Any] = {"checkpoint": str(out), "form": form}
    if form == "dense":
        text = f"The edited model is in {export_dense(loaded, laser, out)}; transformers loads it."
    else:
        table = export_adapter(loaded, laser, out)
        result["matrices"] = table.to_dict("records")
        text = f"{table.to_string(index=False)}\nThe adapter is in {out}; peft.PeftModel.from_pretrained loads it."
    result["card"] = str(write_model_card(loaded, laser, out, form, run_of(edit)))
    output.say(result, text)
