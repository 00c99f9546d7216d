"""Generic words, from a corpus: those that any text is made of, whatever it is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from laser_interp.facts.fact_set import FactSet
from laser_interp.frequency.corpus import Reader, Reading, shards
from laser_interp.frequency.names import normalise, normalise_joined
from laser_interp.models.model import Model


def frequent_words(
    corpus: str | Path | Iterable[str | Path],
    *,
    coverage: float = 0.5,
    model: Model | None = None,
    exclude: FactSet | None = None,
    text_column: str = "text",
    document: str = "line",
    progress: bool = True,
) -> tuple[str, ...]:
    """The most frequent words, as many as make up a share of all words of a corpus.

    In English text half of all words are about a hundred different ones: articles, prepositions, pronouns,
    auxiliary verbs.

    Args:
        corpus, text_column, document: see `laser_interp.count`.
        coverage: the share.
        model: keep only words that are one token of this model's, in lower case or else capitalised.
        exclude: words of these facts' subjects and answers do not count as generic, however frequent.

    Returns:
        Words, the most frequent first.

    Raises:
        ValueError: a share outside (0, 1), or a corpus without words.
    """
    from tqdm.auto import tqdm

    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}: expected a share in (0, 1)")
    names = {
        word
        for fact in (exclude or ())
        for text in (fact.subject, *(exclude.spellings(fact) if exclude else ()))
        for word in normalise(text).split()
    }
    parts = shards([corpus] if isinstance(corpus, str | Path) else list(corpus), document)
    counted: Counter[str] = Counter()
    total = sum(shard.size for shard in parts)
    with tqdm(total=total, desc="words", unit="B", unit_scale=True, disable=not progress) as bar:
        for shard in parts:
            for _, documents in Reader(shard, Reading(text_column, document), bar.update).blocks():
                counted.update(normalise_joined(documents).decode().replace("\0", " ").split())
    if not counted:
        raise ValueError("the corpus holds no words")
    wanted = coverage * counted.total()
    found: list[str] = []
    for word, n in sorted(counted.items(), key=lambda one: (-one[1], one[0])):
        if wanted <= 0:
            break
        wanted -= n
        if word not in names and not word.isdecimal():
            found.append(word)
    return tuple(found) if model is None else tuple(_tokens(model, found))


def _tokens(model: Model, words: list[str]) -> Iterator[str]:
    """The words that are one token in the middle of a text."""
    for word in words:
        for written in (word, word.capitalize()):
            try:
                (tokens,) = model.encode_answers([("a", written)])
            except ValueError:  # not in its vocabulary
                continue
            if len(tokens) == 1:
                yield written
                break
