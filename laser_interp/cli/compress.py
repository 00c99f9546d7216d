"""`laser-interp compress`."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laser_interp.cli.options import Flag, ModelOptions, Output, records

if TYPE_CHECKING:
    from laser_interp.report.model_card import Form


def compress(
    *,
    model: ModelOptions,
    edit: str,
    out: Path,
    dense: Flag = False,
    adapter: Flag = False,
    measure: Flag = False,
    output: Output = Output(),
) -> None:
    """Store an edited model smaller, as factors of its truncated matrices, or export it dense or as an adapter.

    A model card (README.md) is written beside it. Where the edit is a study's edit.json, the card quotes its numbers.

    Args:
        edit: SITE:RHO, as in 27.in:0.01. Several are joined by +; *.mlp:0.1 is for all layers. Or the file of
            an edit (.json).
        out: Folder for the checkpoint; it must not exist.
        dense: Write a plain transformers checkpoint with the truncated weights instead.
        adapter: Write the difference as a LoRA adapter for PEFT instead.
        measure: Also measure the peak memory before and after.
    """
    from laser_interp.edits.adapter import export_adapter, require_peft
    from laser_interp.edits.compression import compress as run
    from laser_interp.edits.compression import export_dense, peak_memory
    from laser_interp.edits.edit_loading import read_edit
    from laser_interp.report.model_card import run_of, write_model_card

    if dense and adapter:
        raise ValueError("--dense and --adapter are two forms of one export: give one of them")
    if adapter and measure:
        raise ValueError("--measure loads the export by itself, and an adapter is no model of its own: leave it out")
    if adapter:
        require_peft()  # before the model is loaded, not after it
    form: Form = "dense" if dense else "adapter" if adapter else "factors"
    loaded = model.load()
    laser = read_edit(loaded, edit)
    result: dict[str, Any] = {"checkpoint": str(out), "form": form}
    if form == "dense":
        text = f"The edited model, dense, is in {export_dense(loaded, laser, out)}; transformers loads it."
    elif form == "adapter":
        table = export_adapter(loaded, laser, out)
        result["matrices"] = records(table)
        text = f"{table.to_string(index=False)}\nThe adapter is in {out}; peft.PeftModel.from_pretrained loads it."
    else:
        table = run(loaded, laser, out)
        result["matrices"] = records(table)
        text = f"{table.to_string(index=False)}\n"
        text += f"The compressed model is in {out}; laser_interp.load_model({str(out)!r}) loads it."
    result["card"] = str(write_model_card(loaded, laser, out, form, run_of(edit)))
    if measure:
        with tempfile.TemporaryDirectory() as folder:
            before = peak_memory(loaded.save_checkpoint(Path(folder) / "before"))
        after = peak_memory(out)
        result["peak_bytes"] = {"before": before, "after": after}
        text += f"\nPeak memory to load and run: {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after."
    output.say(result, text)
