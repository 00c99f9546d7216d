"""The one normaliser: what is done to names and text alike before they are compared.

Many documents are normalised at a time, as UTF-8: `joined` puts them together, and `normalise_joined` gives what
`normalise` gives for each of them.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import regex

NORMALISER = "nfkc, case folded, words with their marks joined by single spaces, without invisible characters"
SEPARATOR = b" \0 "  # between documents; no document holds a NUL once it is normalised
# A word begins with a letter, a digit or "_". Combining marks go on with it: they are vowels in Indic scripts.
_WORDS = regex.compile(r"[\p{L}\p{N}\p{Pc}][\p{L}\p{N}\p{Pc}\p{M}\p{Join_Control}]*")
# Only in Latin and Greek: in other scripts a mark may be a vowel, or make a different letter.
# Soft hyphens, zero-width spaces and marks of direction are not seen, and hide a name. Joiners are letters' forms in
# Arabic and Indic scripts, and nothing in these:
_INVISIBLE = regex.compile(
    r"[\u00ad\u200b\u200e\u200f\u2060\ufeff]|(?<=[\p{Latin}\p{Greek}\p{Cyrillic}])[\u200c\u200d]+"
)
_ACCENTS = regex.compile(r"(?<=[\p{Latin}\p{Greek}]\p{Mn}*)\p{Mn}+")
_STROKES = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe"})
_NOT_ASCII = re.compile(rb"[^\x00-\x7f]+")
_ASCII_BYTES = bytes(range(128))
# What `normalise` does to ASCII: letters to lower case, digits and "_" stay, the rest to a space (NUL: see above).
_TABLE = bytes(
    0 if byte == 0 else ord(chr(byte).lower()) if chr(byte).isalnum() or byte == ord("_") else 32 for byte in range(128)
) + bytes(range(128, 256))
_MANY_NOT_ASCII = 0.2  # from this share of bytes on, word-by-word folding is slower than the whole text's
_LONG = 64  # bytes; longer words are too rare to remember


def normalise(text: str, *, fold_accents: bool = False) -> str:
    """The one form in which names are looked for: " word word … ", a space at either end.

    NFKC, case folding, NFKC again, then every run of word characters (Unicode's letters and digits, "_", and the
    marks that follow them), joined by single spaces. So case, punctuation, line breaks and the encoding of accents make
    no difference, and invisible characters inside a name do not hide it. A hyphen separates words: "re-do" is two
    words. In scripts without spaces between words, a name is found only where punctuation or spaces surround it.

    Args:
        fold_accents: treat accented Latin and Greek letters as the plain ones.
    """
    text = text if text.isascii() else _INVISIBLE.sub("", text)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    folded = _without_accents(folded) if fold_accents else folded
    return f" {' '.join(_WORDS.findall(folded))} "


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed).translate(_STROKES))


def joined(documents: Iterable[str]) -> bytes:
    """Documents in the form that `normalise_joined` takes.

    Raises:
        UnicodeEncodeError: a lone surrogate, which no text holds.
    """
    return SEPARATOR.join(text.replace("\0", " ").encode() for text in documents)


def normalise_joined(documents: bytes, *, fold_accents: bool = False) -> bytes:
    """What `normalise` makes of each document, still joined, and fast where the text is mostly ASCII.

    Folding word by word is right because NFKC joins nothing across an ASCII character that is no letter.
    """
    text = b" " + documents.translate(_TABLE) + b" "
    if not text.isascii():
        if len(text.translate(None, _ASCII_BYTES)) > _MANY_NOT_ASCII * len(text):
            parts = (normalise(part.decode(), fold_accents=fold_accents).encode() for part in documents.split(b"\0"))
            text = b"\0".join(parts)
        else:
            text = _fold_words(text, fold_accents)
    letters = np.frombuffer(text, np.uint8)
    space = letters == 32
    keep = np.ones(len(letters), bool)
    np.logical_not(space[1:] & space[:-1], out=keep[1:])
    return letters[keep].tobytes()


def _fold_words(text: bytes, fold_accents: bool) -> bytes:
    out, done = [], 0
    for found in _NOT_ASCII.finditer(text):
        if found.start() < done:
            continue
        start, stop = text.rfind(b" ", done, found.start()) + 1, text.find(b" ", found.end())
        word = text[start:stop]
        out += (
            text[done:start],
            _fold(word, fold_accents) if len(word) <= _LONG else _fold.__wrapped__(word, fold_accents),
        )
        done = stop
    out.append(text[done:])
    return b"".join(out)


@lru_cache(maxsize=1 << 16)
def _fold(word: bytes, fold_accents: bool) -> bytes:
    return normalise(word.decode(), fold_accents=fold_accents).encode()
