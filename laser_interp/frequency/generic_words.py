"""Finds generic words in a corpus: the words that every text uses, whatever it is about."""

import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.frequency.normaliser import normalise, normalise_joined
from laser_interp.frequency.reader import DocumentUnit, Reader, Reading
from laser_interp.frequency.shards import corpus_files
from laser_interp.progress import progress_bar


def frequent_words(
    corpus: str | Path | Iterable[str | Path],
    *,
    coverage: float = 0.5,
    exclude: AnyFacts | None = None,
    text_column: str = "text",
    document: DocumentUnit = "line",
    progress: bool = True,
) -> tuple[str, ...]:
    """The most frequent words, as many as make up a share of all words of a corpus.

    In English text half of all words are about a hundred different ones: articles, prepositions, pronouns,
    auxiliary verbs.

    Args:
        corpus, text_column, document: see `laser_interp.count`.
        coverage: the share of all words that these words make up together.
        exclude: words of these facts' subjects and answers do not count as generic, however frequent.

    Returns:
        Words, the most frequent first; `li.counts.answer_words` keeps those that are one token of a model.

    Raises:
        ValueError: a share outside (0, 1), or a corpus without words.

    Example:
        >>> li.counts.frequent_words("organism", coverage=0.3)
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}: expected a share in (0, 1)")
    excluded = None if exclude is None else facts_of(exclude)
    names = {
        word
        for fact in excluded or ()
        for text in (fact.subject, *(excluded.spellings(fact) if excluded else ()))
        for word in normalise(text).split()
    }
    parts, notes = corpus_files(corpus, document)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    counted: Counter[str] = Counter()
    total = sum(shard.size for shard in parts)
    with progress_bar(total=total, desc="words", unit="B", unit_scale=True, disable=not progress) as bar:
        for shard in parts:
            for _, documents in Reader(shard, Reading(text_column, document), bar.update).blocks():
                counted.update(normalise_joined(documents).decode().replace("\0", " ").split())
    if not counted:
        raise ValueError("the corpus holds no words")
    wanted = coverage * counted.total()
    words: list[str] = []
    for word, n in sorted(counted.items(), key=lambda pair: (-pair[1], pair[0])):
        if wanted <= 0:
            break
        wanted -= n
        if word not in names and not word.isdecimal():
            words.append(word)
    return tuple(words)
