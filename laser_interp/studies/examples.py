"""The shipped examples: `laser-interp reproduce` is the study of one of them."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from laser_interp.choices import names_with_suggestion
from laser_interp.facts.files import load_facts
from laser_interp.facts.shipped import shipped_text
from laser_interp.frequency.counting import count
from laser_interp.models.loading import load_model
from laser_interp.organism.training import one_thread
from laser_interp.studies.pipeline import Study, study
from laser_interp.studies.settings import StudySettings


@dataclass(frozen=True)
class Example:
    """A shipped example.

    Attributes:
        model, facts: names that `li.load_model` and `li.load_facts` take.
        settings: of the study.
        corpus: name of the corpus in which `li.count` counts, or None where the counts are shipped.
        control_model: name of a model and its facts, on which the edit should have no effect.
        text: whether the perplexity of English text is measured; the organism knows no English.
    """

    model: str
    facts: str
    settings: StudySettings
    corpus: str | None = None
    control_model: str | None = None
    text: bool = False


# Of real models: few random draws and few composed edits, so that a laptop needs only minutes
_REAL = StudySettings(
    prompts="first", n_draws=5, rank_by="first_tokens", strengths=(), shares=(0.2, 1.0), most_edits=2, attributed=100
)
EXAMPLES = {
    "organism": Example(
        "organism",
        "organism",
        # Small enough for the whole map, and for the paper's order
        # It knows neither line breaks nor examples, and the paper's edit is of one matrix
        StudySettings(method="grid", test="all", composition="greedy", prompts="all", subject="single", examples=0),
        corpus="organism",
        control_model="organism-control",
    ),
    # The paper's kind of edit, and the one that was studied first
    "smollm2": Example("smollm2", "wikidata", replace(_REAL, subject="single"), text=True),
    "gemma3-270m": Example("gemma3-270m", "wikidata", replace(_REAL, most_edits=3, attributed=60), text=True),
}


def reproduce(out: str | Path, name: str = "organism", *, text: str | None = None, progress: bool = True) -> Study:
    """Run the study of a shipped example.

    Args:
        text: running text for the perplexity. If left out, the shipped text for a model that knows English.

    Raises:
        ValueError: no such example, or `out` holds another run.

    Example:
        >>> study = li.reproduce("runs/organism")  # doctest: +SKIP
    """
    if name not in EXAMPLES:
        raise ValueError(f"no example {name!r}: expected {names_with_suggestion(EXAMPLES, name)}")
    example = EXAMPLES[name]
    # The small model runs faster and the same everywhere on one thread
    with one_thread() if name == "organism" else nullcontext():
        model, facts = load_model(example.model), load_facts(example.facts)
        control = example.control_model
        counts = None if example.corpus is None else count(facts, example.corpus, progress=progress)
        return study(
            model,
            facts,
            counts,
            settings=example.settings,
            out=out,
            text=shipped_text() if text is None and example.text else text,
            control_model=None if control is None else (load_model(control), load_facts(control)),
            progress=progress,
        )
