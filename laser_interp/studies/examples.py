"""The shipped examples: `laser-interp reproduce` is the study of one of them."""

from dataclasses import dataclass
from pathlib import Path

from laser_interp.facts.files import load_facts
from laser_interp.frequency.scan import count
from laser_interp.models.loading import load_model
from laser_interp.organism.training import one_thread
from laser_interp.studies.pipeline import Study, study
from laser_interp.studies.settings import StudySettings


@dataclass(frozen=True)
class Example:
    """A shipped example.

    Attributes:
        model, facts, corpus: names that `li.load_model`, `li.load_facts` and `li.count` take.
        control_model: the name of a model and facts on which the edit must do nothing, or None.
        settings: of the study.
    """

    model: str
    facts: str
    corpus: str
    control_model: str | None
    settings: StudySettings


EXAMPLES = {"organism": Example("organism", "organism", "organism", "organism-control", StudySettings(test="all"))}


def reproduce(out: str | Path, name: str = "organism", *, progress: bool = True) -> Study:
    """The study of a shipped example.

    Raises:
        ValueError: no such example, or `out` holds another run.
    """
    if name not in EXAMPLES:
        raise ValueError(f"no example {name!r}: expected one of {', '.join(EXAMPLES)}")
    example = EXAMPLES[name]
    with one_thread():
        model, facts = load_model(example.model), load_facts(example.facts)
        control = example.control_model
        return study(
            model,
            facts,
            count(facts, example.corpus, progress=progress),
            settings=example.settings,
            out=out,
            control_model=None if control is None else (load_model(control), load_facts(control)),
            progress=progress,
        )
