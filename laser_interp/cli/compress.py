"""`laser-interp compress`."""

import tempfile
from pathlib import Path
from typing import Any

from laser_interp.cli.options import Flag, ModelOptions, Output, records


def compress(
    *, model: ModelOptions, edit: str, out: Path, dense: Flag = False, measure: Flag = False, output: Output = Output()
) -> None:
    """Store an edited model smaller, as factors of its truncated matrices, or export it dense.

    Args:
        edit: SITE:RHO, as in 27.in:0.01. Several are joined by +; *.mlp:0.1 is for all layers. Or the file of
            an edit (.json).
        out: Folder for the checkpoint; it must not exist.
        dense: Write a plain transformers checkpoint with the truncated weights instead.
        measure: Also measure the peak memory before and after.
    """
    from laser_interp.edits.compression import compress as run
    from laser_interp.edits.compression import export_dense, peak_memory
    from laser_interp.edits.edit_loading import read_edit

    loaded = model.load()
    laser = read_edit(loaded, edit)
    result: dict[str, Any] = {"checkpoint": str(out)}
    if dense:
        text = f"The edited model, dense, is in {export_dense(loaded, laser, out)}; transformers loads it."
    else:
        table = run(loaded, laser, out)
        result["matrices"] = records(table)
        text = f"{table.to_string(index=False)}\n"
        text += f"The compressed model is in {out}; laser_interp.load_model({str(out)!r}) loads it."
    if measure:
        with tempfile.TemporaryDirectory() as folder:
            before = peak_memory(loaded.save_checkpoint(Path(folder) / "before"))
        after = peak_memory(out)
        result["peak_bytes"] = {"before": before, "after": after}
        text += f"\nPeak memory to load and run: {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after."
    output.say(result, text)
