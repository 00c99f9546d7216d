"""`laser-interp probe`."""

from laser_interp.cli.options import ModelOptions, Output, records


def probe(
    prompt: str,
    /,
    *,
    model: ModelOptions,
    edit: str | None = None,
    answer: str | None = None,
    rivals: tuple[str, ...] = (),
    k: int = 5,
    output: Output = Output(),
) -> None:
    """Look at one prompt: what the model answers as trained, under an edit, and by what the edit discards, and why.

    Args:
        prompt: Text that ends where the answer begins.
        edit: SITE:RHO, SITE:rank=K or SITE:rate=R, as in 27.in:0.01, or the file of an edit (.json). Join several
            with +.
        answer: The right answer.
        rivals: Wrong answers of the same kind, after the prompt.
        k: How many answers are listed.
    """
    from laser_interp.discarded.one_prompt import probe as run
    from laser_interp.edits.edit_loading import read_edit

    loaded = model.load()
    found = run(loaded, prompt, {edit: read_edit(loaded, edit, [prompt])} if edit else None, answer, rivals, k)
    tables = ("answers", "summary", "parts", "layers", "directions")
    output.say({name: records(getattr(found, name)) for name in tables}, repr(found))
