"""`laser-interp check`."""

from laser_interp.cli.options import ModelOptions, Output


def check(
    *, model: ModelOptions, layers: tuple[int, ...] | None = None, rho: float = 0.1, output: Output = Output()
) -> None:
    """Compare this package with plain transformers on your model, your device and your dtype.

    It needs memory for two copies of the model. The last line is the verdict; if the check fails, the command ends
    with an error.

    For example: laser-interp check --model organism

    Args:
        layers: Layers whose matrices are edited. If left out, the first, a middle and the last layer.
        rho: Fraction of the rank that the edits keep.
    """
    from laser_interp.verification.model_check import check as run

    checked = run(model.load(), layers=layers, rho=rho, progress=not output.quiet)
    result = {"right": checked.right, "verdict": checked.verdict, "table": checked.table.to_dict("records")}
    output.say(result | {"speed": dict(checked.speed)} | dict(checked.about), repr(checked))
    if not checked.right:
        raise ValueError("the check failed; the table above says where")
