"""What facts are counted in. A new source of counts is one file with a class of this kind."""

from abc import ABC, abstractmethod
from typing import Any

import pandas as pd

from laser_interp.facts.tasks import AnyFacts


class CountSource(ABC):
    """A corpus that can be asked how often facts occur in it; see `li.count`."""

    @abstractmethod
    def count(self, facts: AnyFacts, *, progress: bool = True, **how: Any) -> pd.DataFrame:
        """One row a fact, with the columns of `li.count`. Each source takes those of its options that it can use."""

    @abstractmethod
    def identity(self, facts: AnyFacts, **how: Any) -> dict[str, Any]:
        """What identifies counts of this source, as JSON: where it is equal, the counts are equal."""
