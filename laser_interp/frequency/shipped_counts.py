"""Training frequencies that come with the package, or lie in a file."""

from pathlib import Path

import pandas as pd

from laser_interp.facts.fact_set import FactSet
from laser_interp.facts.files import load_facts
from laser_interp.facts.shipped import WIKIDATA
from laser_interp.facts.wikidata import load_wikidata_counts
from laser_interp.storage.tables import read_table


def load_counts(source: str | Path) -> pd.DataFrame:
    """Training frequencies, one row a fact: `fact_id, n_subject, n_object, n_both, unit`.

    The source of the counts of "wikidata" does not tell whether it found no sentence or did not search: 481 of the
    2,099 facts have no count. They are missing here, not zero, and a study shows both readings.

    Args:
        source: "wikidata", for the shipped facts of that name, or a table that `li.count` wrote.

    Raises:
        FileNotFoundError: no such table.

    Example:
        >>> int(li.load_counts("wikidata")["n_both"].median())
        16
    """
    if str(source) == WIKIDATA:
        return load_wikidata_counts()
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"no table of counts {source}: make one, by li.count or `laser-interp count`; {WIKIDATA!r} is shipped"
        )
    return read_table(Path(source), "counts")


def counts_of(facts: FactSet) -> pd.DataFrame | None:
    """The shipped counts of shipped facts, or of some of them; None for others."""
    if facts.name != WIKIDATA:
        return None
    shipped = {fact.fact_id: (fact.subject, fact.object) for fact in load_facts(WIKIDATA)}
    are_they = all(shipped.get(fact.fact_id) == (fact.subject, fact.object) for fact in facts)
    return load_counts(WIKIDATA) if are_they else None


def own_counts(facts: FactSet) -> pd.DataFrame | None:
    """The frequencies that facts carry themselves, as counts: `fact_id, n_both`; None where not all have one."""
    if any(fact.frequency is None for fact in facts):
        return None
    return facts.to_frame()[["fact_id", "frequency"]].rename(columns={"frequency": "n_both"})
