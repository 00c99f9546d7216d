"""Counts from the entity maps of Kandpal et al. 2023 (arXiv 2211.08411): which documents of a corpus name an entity.

Their files (`nkandpa2/pretraining_entities` on the Hugging Face hub: the Pile, ROOTS, C4, OpenWebText, Wikipedia) hold
an array of document numbers for each DBpedia entity that DBpedia Spotlight found. A model made these links, so some
are wrong; but they tell one Paris from another.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.frequency.source import CountSource
from laser_interp.progress import progress_bar
from laser_interp.storage.checksums import name_size_and_ends
from laser_interp.storage.schemas import check

DBPEDIA = "http://dbpedia.org/resource/"


@dataclass(frozen=True)
class EntityMap(CountSource):
    """An entity map as a source of counts.

    Attributes:
        path: the file, as `the_pile_entity_map.npz`. Nothing in it is executed.
        entities: name -> its address in DBpedia, for names that differ from their entity's title, as in
            {"Paris (Texas)": "http://dbpedia.org/resource/Paris,_Texas"}. All other names are taken as titles.

    Example:
        >>> li.count(facts, li.counts.EntityMap("the_pile_entity_map.npz"))  # doctest: +SKIP
    """

    path: str | Path
    entities: Mapping[str, str] = field(default_factory=dict)

    def count(self, facts: AnyFacts, *, progress: bool = True) -> pd.DataFrame:
        """Documents in which a fact's subject, its object, and both were linked.

        Returns:
            The columns of `li.count`, for the facts whose subject and object are both in the map; a warning says how
            many others there are.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is no entity map, or no fact has both its subject and its object in it.
        """
        facts, path, entities = facts_of(facts), Path(self.path), self.entities
        identity = self.identity(facts)
        try:
            linked = np.load(path, allow_pickle=False)
            known = set(linked.files)
        except (ValueError, OSError, BadZipFile, AttributeError) as error:
            raise ValueError(
                f"{path.name} is no entity map ({error}): expected an .npz file of integer arrays"
            ) from error
        documents = cache(partial(_documents, linked, path))

        def of(names: tuple[str, ...]) -> np.ndarray | None:
            found = [documents(a) for a in (address_of(name, entities) for name in names) if a in known]
            return np.unique(np.concatenate(found)) if found else None

        rows = []
        for fact in progress_bar(facts.facts, desc="counting", unit="fact", disable=not progress):
            subject = of((fact.subject, *fact.subject_aliases))
            answer = of((fact.object, *fact.aliases))
            if subject is not None and answer is not None:
                n_both = len(np.intersect1d(subject, answer, assume_unique=True))
                rows.append((fact.fact_id, len(subject), len(answer), n_both))
        if not rows:
            first = facts.facts[0]
            raise ValueError(
                f"{path.name} holds both the subject and the object of no fact of {facts.name!r}; for the first, "
                f"expected {address_of(first.subject, entities)} and {address_of(first.object, entities)}: name the "
                "entities, as entities={NAME: ADDRESS}"
            )
        if len(rows) < len(facts):
            warnings.warn(
                f"{len(facts) - len(rows)} of {len(facts)} facts have a name that is not in {path.name}: they are left "
                "out",
                stacklevel=3,
            )
        counts = pd.DataFrame(rows, columns=["fact_id", "n_subject", "n_object", "n_both"]).assign(
            n_docs=pd.array([pd.NA] * len(rows), dtype="Int64"),
            corpus=path.name,
            unit="document",
            normaliser="entities that DBpedia Spotlight linked",
            approximate=False,
        )
        counts.attrs["provenance"] = identity
        return check(counts, "counts")

    def identity(self, facts: AnyFacts) -> dict[str, Any]:
        """What identifies counts by this map: where it is equal, the counts are equal."""
        facts, path = facts_of(facts), Path(self.path)
        if not path.is_file():
            raise FileNotFoundError(f"no entity map {str(path)!r}: expected an .npz file")
        file = hashlib.sha256(name_size_and_ends(path)).hexdigest()
        of_map = {"source": path.name, "source_sha256": file, "entities": dict(self.entities)}
        return {"facts": facts.name, "facts_sha256": facts.sha256, **of_map}


def address_of(name: str, entities: Mapping[str, str]) -> str:
    """DBpedia's address of an entity, by its title.

    Example:
        >>> address_of("Barack Obama", {})
        "http://dbpedia.org/resource/Barack_Obama"
    """
    if name in entities:
        return entities[name]
    title = "_".join(name.split())
    return DBPEDIA + title[:1].upper() + title[1:]


def _documents(linked: np.lib.npyio.NpzFile, path: Path, address: str) -> np.ndarray:
    try:
        found = linked[address]
    except (ValueError, OSError, BadZipFile) as error:  # objects are pickles, which are never read
        raise ValueError(f"{address} in {path.name} cannot be read ({error}): expected document numbers") from error
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{address} in {path.name} is {found.dtype} {found.shape}: expected document numbers")
    return np.unique(found)
