"""What edits, controls, categories and parts of a gain are called in figures."""

EDITS = {
    "base": "as trained",
    "laser": "LASER",
    "single": "the single edit",
    "discarded": "discarded part alone",
    "same_spectrum_random": "same-spectrum random\nmatrix subtracted",
    "random_subspace": "random subspace of\nequal norm removed",
    "random_kept": "random directions\nkept instead",
    "random_equal_energy": "random directions of\nequal energy removed",
    "bottom_kept": "the smallest directions\nkept instead",
    "zeroed": "matrix zeroed",
    "layer_0": "the same edit\nin layer 0",
    "generic_masked": "no edit, generic\nwords masked",
}
CATEGORIES = {"correct": "correct", "generic": "generic word", "same_type": "wrong, same type", "other": "other"}
# Where answers were not ranked among those of their relation, kind and rivals are one part, the others.
PARTS = {
    "generic": "generic words",
    "kind": "kind of answer",
    "rivals": "rivals of the same kind",
    "others": "all other words",
    "rest": "further tokens",
}


def plain_name(edit: str) -> str:
    """The plain name of an edit, on one line; an edit without a plain name keeps its own."""
    return EDITS.get(edit, edit).replace("\n", " ")
