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
    """Save an edited model: compressed as factors of its truncated matrices, as dense weights, or as an adapter.

    It also writes a model card (README.md), which quotes the study's report if the edit is a study's edit.json.

    Args:
        edit: SITE:RHO or SITE:rank=K, as in 27.in:0.01, or the file of an edit (.json). Join several with +;
            *.mlp:0.1 edits all layers.
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
        raise ValueError("--measure loads the exported model, but an adapter alone is not a model: leave --measure out")
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
