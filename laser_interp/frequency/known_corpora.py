"""Which models were trained on a corpus that infini-gram can be asked about, and the index of it.

The names of the indexes are those of infini-gram's documentation (https://infini-gram.readthedocs.io/en/latest/api.html,
read in November 2026). All of them were made with the tokenizer of Llama 2.
"""

from dataclasses import dataclass
from fnmatch import fnmatch

TOKENIZER = "meta-llama/Llama-2-7b-hf"


@dataclass(frozen=True)
class KnownCorpus:
    """A training corpus with an index.

    Attributes:
        models: patterns of hub ids that were trained on it.
        index: its name at the service.
        corpus: what it is.
        note: where it differs from what the models saw; "" where it does not.
    """

    models: tuple[str, ...]
    index: str
    corpus: str
    note: str = ""


KNOWN_CORPORA = (
    KnownCorpus(
        ("eleutherai/gpt-j-6b", "eleutherai/gpt-neo-*", "eleutherai/gpt-neox-20b", "eleutherai/pythia-*"),
        "v4_piletrain_llama",
        "the Pile, training set",
        "Pythia's models named -deduped saw a deduplicated form of it",
    ),
    KnownCorpus(
        ("allenai/olmo-7b-0424*", "allenai/olmo-*-0724*"),
        "v4_dolma-v1_7_llama",
        "Dolma 1.7",
        "the last part of the training mixed its sources differently",
    ),
    KnownCorpus(
        ("allenai/olmo-2-0325-32b*",),
        "v4_olmo-2-0325-32b-instruct_llama",
        "everything that OLMo 2 32B Instruct was trained on",
        "a base model did not see the part for instructions",
    ),
    KnownCorpus(
        ("allenai/olmo-2-*",),
        "v4_olmo-2-1124-13b-instruct_llama",
        "everything that OLMo 2 13B Instruct was trained on",
        "a base model did not see the part for instructions, and the smaller ones saw less of the rest",
    ),
    KnownCorpus(("togethercomputer/redpajama-incite-*",), "v4_rpj_llama_s4", "RedPajama"),
)
_NO_INDEX = {"smollm": "SmolLM's training data has no public index", "organism": "the organism's corpus is shipped"}


def corpus_of(model: str) -> KnownCorpus:
    """The indexed corpus that a model was trained on.

    Args:
        model: its hub id.

    Raises:
        ValueError: none is known.

    Example:
        >>> li.counts.corpus_of("EleutherAI/gpt-j-6b").index
        'v4_piletrain_llama'
    """
    if not isinstance(model, str):
        raise ValueError(f"the model is {model!r}: expected its hub id, as in 'EleutherAI/gpt-j-6b'")
    name = model.lower()
    for known in KNOWN_CORPORA:
        if any(fnmatch(name, pattern) for pattern in known.models):
            return known
    why = next((f"{reason}; " for key, reason in _NO_INDEX.items() if key in name), "")
    families = "; ".join(f"{', '.join(known.models)} ({known.corpus})" for known in KNOWN_CORPORA)
    raise ValueError(f"no indexed corpus is known for {model!r}: {why}known are {families}")
