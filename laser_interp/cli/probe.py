"""`laser-interp probe`."""

from typing import Annotated

from cyclopts import Parameter

from laser_interp.cli.options import ModelOptions, Output


def probe(
    prompt: str,
    /,
    *,
    model: ModelOptions,
    edit: str | None = None,
    answer: str | None = None,
    rivals: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    k: int = 5,
    subject: str | None = None,
    corpus: str | None = None,
    output: Output = Output(),
) -> None:
    """Look at one prompt: its answers, why they change, in which layer, and by which directions.

    For example: laser-interp probe --model organism --edit 3.in:0.05 'Once Mira Tolen was born in' --answer Varwick

    Args:
        prompt: Text that ends where the answer begins.
        edit: SITE:RHO, SITE:rank=K or SITE:rate=R, as in 27.in:0.01, or the file of an edit (.json). Join several
            with +.
        answer: The right answer.
        rivals: Wrong answers of the same kind, with commas between them.
        k: How many answers are listed.
        subject: Whom or what the prompt asks about, to be counted in the corpus.
        corpus: A file, a folder or a pattern of documents, in which subject and answer are counted; organism.
    """
    from laser_interp.discarded.one_prompt import probe as run
    from laser_interp.edits.edit_loading import read_edit

    if corpus is not None and not (subject and answer):
        raise ValueError("the corpus is asked how often it holds a subject and an answer: give --subject and --answer")
    loaded = model.load()
    edits = {edit: read_edit(loaded, edit, [prompt])} if edit else None
    found = run(loaded, prompt, edits, answer, rivals, k, subject=subject, source=corpus)
    tables = ("answers", "summary", "parts", "layers", "directions", "counts")
    output.say({name: getattr(found, name).to_dict("records") for name in tables}, repr(found))
