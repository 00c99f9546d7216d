"""Counts of a fact in training data: sources beside files, which `li.count` takes too, and what goes with them."""

from laser_interp.frequency.entity_maps import EntityMap
from laser_interp.frequency.generic_words import frequent_words
from laser_interp.frequency.imported_counts import ImportedCounts, join_counts
from laser_interp.frequency.index import Index, build_index
from laser_interp.frequency.infinigram_sources import HostedInfiniGram, LocalInfiniGram
from laser_interp.frequency.known_corpora import corpus_of
from laser_interp.frequency.matching import Matching
from laser_interp.frequency.scan import Corpus
from laser_interp.organism.checkpoint_corpus import organism_corpus
from laser_interp.scoring.generic_words import answer_words

__all__ = [
    "Corpus",
    "EntityMap",
    "HostedInfiniGram",
    "ImportedCounts",
    "Index",
    "LocalInfiniGram",
    "Matching",
    "answer_words",
    "build_index",
    "corpus_of",
    "frequent_words",
    "join_counts",
    "organism_corpus",
]
