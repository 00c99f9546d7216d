"""How often the training data mention a fact: every way of counting gives the same table."""

from laser_interp.frequency.generic_words import frequent_words
from laser_interp.frequency.imported_counts import Joined, join_counts
from laser_interp.frequency.index import Index, build_index
from laser_interp.frequency.infinigram import Hosted, Local, count_infinigram
from laser_interp.frequency.names import normalise
from laser_interp.frequency.scan import count

__all__ = [
    "Hosted",
    "Index",
    "Joined",
    "Local",
    "build_index",
    "count",
    "count_infinigram",
    "frequent_words",
    "join_counts",
    "normalise",
]
