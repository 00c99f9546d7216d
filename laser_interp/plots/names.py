"""What edits, controls and categories are called in figures."""

EDITS = {
    "base": "as trained",
    "laser": "LASER",
    "discarded": "discarded part alone",
    "same_spectrum_random": "same-spectrum random\nmatrix subtracted",
    "random_subspace": "random subspace of\nequal norm removed",
    "random_kept": "as many directions kept,\ndrawn at random",
    "random_equal_energy": "random directions of\nequal energy removed",
    "bottom_kept": "as many kept,\nthe smallest",
    "zeroed": "matrix zeroed",
    "layer_0": "same edit in layer 0",
    "generic_masked": "no edit, generic\nwords masked",
}
CATEGORIES = {"correct": "correct", "generic": "generic word", "same_type": "wrong, same type", "other": "other"}
