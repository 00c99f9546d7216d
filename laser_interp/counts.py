"""Counts of a fact in training data: sources beside files, which `li.count` takes too, and what goes with them."""

from laser_interp.frequency.entity_maps import EntityMap as EntityMap
from laser_interp.frequency.generic_words import frequent_words as frequent_words
from laser_interp.frequency.imported_counts import ImportedCounts as ImportedCounts
from laser_interp.frequency.imported_counts import join_counts as join_counts
from laser_interp.frequency.index import Index as Index
from laser_interp.frequency.index import build_index as build_index
from laser_interp.frequency.infinigram_sources import HostedInfiniGram as HostedInfiniGram
from laser_interp.frequency.infinigram_sources import LocalInfiniGram as LocalInfiniGram
from laser_interp.frequency.known_corpora import corpus_of as corpus_of
from laser_interp.frequency.matching import Matching as Matching
from laser_interp.frequency.scan import Corpus as Corpus
from laser_interp.organism.checkpoint_corpus import organism_corpus as organism_corpus
from laser_interp.scoring.generic_words import answer_words as answer_words
