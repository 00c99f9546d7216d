"""Names and texts in many scripts, and a counter that is obviously right."""

import unicodedata

from hypothesis import strategies as st


def fact(i, subject, obj, **more):
    return {"fact_id": str(i), "subject": subject, "relation": "r", "object": obj, "prompt": "?", **more}


STROKES = {"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe"}


def fold(text, accents=False):
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return text if accents else without_accents(text)


def without_accents(text):
    """Letter by letter: marks go where the letter before them is Latin or Greek."""
    out, bare = "", False
    for letter in unicodedata.normalize("NFD", text):
        mark = unicodedata.category(letter) == "Mn"
        if not mark:
            bare = unicodedata.name(letter, "").startswith(("LATIN", "GREEK"))
        if not (mark and bare):
            out += STROKES.get(letter, letter)
    return unicodedata.normalize("NFC", out)


def words_of(text):
    """Letter by letter, without any regular expression: what a name and a text are compared by."""
    words, before = [], False
    for letter in text:
        category = unicodedata.category(letter)
        inside = (
            category[0] in "LN" or category == "Pc" or (before and (category[0] == "M" or letter in "\u200c\u200d"))
        )
        if inside and not before:
            words.append("")
        if inside:
            words[-1] += letter
        before = inside
    return words


def spans(name, text, accents):
    """(first word, word after the last) of every mention, found by comparing words one by one."""
    words, wanted = words_of(fold(text, accents)), words_of(fold(name, accents))
    n = len(wanted)
    return [(i, i + n) for i in range(len(words) - n + 1) if words[i : i + n] == wanted]


def naive(rows, texts, window=None, accents=False):
    """Each name looked for in each document by itself."""
    out = []
    for row in rows:
        n_subject = n_object = n_both = n_window = 0
        for text in texts:
            subject, answer = (
                [span for name in names for span in spans(name, text, accents)]
                for names in (
                    [row["subject"], *row.get("subject_aliases", ())],
                    [row["object"], *row.get("aliases", ())],
                )
            )
            gaps = [max(b[0] - a[1], a[0] - b[1], 0) for a in subject for b in answer]
            n_subject, n_object = n_subject + bool(subject), n_object + bool(answer)
            n_both += bool(gaps)
            n_window += window is not None and any(gap <= window for gap in gaps)
        out.append([len(texts), n_subject, n_object, n_both] + ([] if window is None else [n_window]))
    return out


WORDS = ["York", "new", "New", "yorks", "city", "São", "Sao", "Sa\u0303o", "I", "İ", "ı", "i̇", "東京", "京", "re-do"]
WORDS += ["O'Neil", "_x", "ß", "SS", "ﬁn", "½", "Ǆ", "ǰ", "J\u030c", "Ω", "Σίσυφος", "ςσ", "Москва", "नमस्ते", "\u1e9e"]
WORDS += ["दिल", "दाल", "ज़", "มา", "أَب", "می\u200cخواهم"]
NAME = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
SPACES = [" ", "  ", "\n", "\t", "\u00a0", "-", "—", "\u3000", "\r\n", "\0", "\x1f", "=\u0338", "\u0301", "", "…"]
TEXT = st.lists(st.sampled_from([*WORDS, ",", ".", *SPACES]), max_size=16).flatmap(
    lambda parts: st.lists(st.sampled_from(SPACES), min_size=len(parts), max_size=len(parts)).map(
        lambda between: "".join(a + b for a, b in zip(parts, between, strict=True))
    )
)

TEXTS = ["Ada was born\nin London.", "Ada, again\n\nand LONDON", "nothing\nhere", "", "Adaland"]
ROWS = [fact(1, "Ada", "London"), fact(2, "London", "Paris", aliases=["nothing here"])]
