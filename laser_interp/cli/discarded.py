"""`laser-interp discarded`."""

from pathlib import Path
from typing import Literal

from laser_interp.cli.options import Flag, ModelOptions, Output, note


def discarded(
    *,
    model: ModelOptions,
    facts: str,
    edit: str,
    shares: tuple[float, ...] = (1.0,),
    start: Literal["bottom", "top"] = "bottom",
    top_k: int = 5,
    generic_corpus: tuple[str, ...] | None = None,
    split: str | None = None,
    out: Path,
    force: Flag = False,
    output: Output = Output(),
) -> None:
    """Show what the discarded components answer, and the category of each answer.

    For example: laser-interp discarded --model organism --facts organism --edit 3.in:rank=1 --out answers.parquet

    Args:
        facts: Name of shipped facts, or a fact file (.jsonl, .csv, .parquet).
        edit: SITE:RHO, SITE:rank=K or SITE:rate=R, as in 27.in:0.01, or the file of an edit (.json). Join several
            with +.
        shares: Shares of the discarded directions that act, in (0, 1]; 1 is all of them.
        start: Which directions a share takes first: the smallest singular values, or the largest discarded ones.
        top_k: How many answers are listed for each prompt.
        generic_corpus: Corpus whose most frequent words count as generic.
        split: Only this split of the facts.
        out: A .parquet, .csv or .jsonl file.
        force: Replace whatever file has that name. Without it, only an earlier result of this command is replaced.
    """
    from laser_interp.discarded.answers import favoured_answers
    from laser_interp.discarded.continued_text import continuations
    from laser_interp.edits.edit_loading import read_edit
    from laser_interp.frequency.generic_words import frequent_words
    from laser_interp.scoring.categories import CATEGORIES
    from laser_interp.scoring.generic_words import answer_words
    from laser_interp.storage.outputs import check_output, write_output
    from laser_interp.storage.provenance import provenance
    from laser_interp.studies.questions.discarded_part import outcomes

    check_output(out, "answers", force=force)
    loaded, fact_set = model.load_with(facts)
    laser = read_edit(loaded, edit, fact_set)
    generic = None
    if generic_corpus is not None:
        words = frequent_words(generic_corpus, exclude=fact_set, progress=not output.quiet)
        generic = answer_words(loaded, words)
        note(f"{len(generic)} generic words: {' '.join(generic[:12])} …")
    if split is not None:
        fact_set = fact_set.split(split)
    answers = favoured_answers(
        loaded, fact_set, laser, shares=shares, start=start, generic=generic, top_k=top_k, progress=not output.quiet
    )
    answers, categories = outcomes(answers)
    shown = categories[categories["outcome"].isin(["all", "fixed", "broken"])]
    table = shown[["outcome", "edit", "share", *CATEGORIES, "n"]]
    try:
        said = str(continuations(loaded, [fact.prompt for fact in fact_set.facts[:3]], laser, max_new_tokens=8))
    except ValueError as error:  # of a model that cannot continue a text
        said = f"There are no continuations: {error}"
    about = provenance(loaded, fact_set) | {
        "edit": edit,
        "start": start,
        "generic": generic,
        "neighbours": answers.attrs["neighbours"],
    }
    path = write_output(answers, out, "answers", about)
    output.say(
        {"shares": shown.to_dict("records"), "generic": generic, "answers": str(path)},
        f"{table.round(3).to_string(index=False)}\n{said}\nAll answers: {path}",
    )
