"""The columns of every table that is written, in one place."""

from collections.abc import Callable
from typing import Any

import pandas as pd

_FACT = {"fact_id": "text", "prompt_id": "int", "subject": "text", "relation": "text", "object": "text"}
_EDIT = {"site": "text", "kind": "text", "rho": "float", "rank_kept": "float", "alpha": "float"}
_ANSWER = {
    "prediction": "text",
    "correct": "bool",
    "score": "float",
    "top_answer": "text",
    "top_prob": "float",
    "category": "text",
    "logprob": "float",
    "rank": "int",
    "p_generic": "float",
    "generic_masked_top1": "bool",
    "candidate_rank": "float",
}

SCHEMAS: dict[str, dict[str, str]] = {
    "scores": _FACT
    | {"split": "text", "frequency": "float", "edit": "text"}
    | _EDIT
    | _ANSWER
    | {
        "top1": "bool",
        "top5": "bool",
        "top10": "bool",
        "generic_masked_rank": "int",
        "generic_masked_logprob": "float",
        "top_token": "int",
        "candidate_top1": "float",
        "generic_logprob": "float",
        "first_logprob": "float",
        "first_is_generic": "bool",
        "kind_logprob": "float",
        "margin": "float",
        "n_answer_tokens": "int",
        "logprob_per_token": "float",
    },
    "search_part": {"cell": "text", "fact_id": "text", "prompt_id": "int", "subject": "text", "split": "text"}
    | _EDIT
    | _ANSWER,
    "text_loss": {"perplexity": "float", "loss": "float", "n_tokens": "float"},
    "screening": {"in_bfloat16": "bool"},
    "gains": {"site": "text", "direction": "int", "gain": "float"},
    "course": {"step": "int", "logprob": "float", "held_out": "float"},
    "proposal": {"site": "text", "rho": "float", "rank": "int", "predicted": "float"},
    "steps": {"step": "int", "site": "text", "rho": "float", "rank_kept": "float"}
    | {"score": "float", "loss": "float", "n_not_finite": "int", "kept": "bool", "edit": "text"},
    "cells": {"cell": "text"}
    | _EDIT
    | {
        "layer": "float",
        "matrix": "text",
        "split": "text",
        "n": "int",
        "score": "float",
        "accuracy": "float",
        "top1": "float",
        "top5": "float",
        "top10": "float",
        "loss": "float",
        "loss_change_se": "float",
        "p_generic": "float",
        "generic_masked_top1": "float",
        "candidate_top1": "float",
        "n_not_finite": "int",
    },
    "counts": {
        "fact_id": "text",
        "n_docs": "int",
        "n_subject": "int",
        "n_object": "int",
        "n_both": "int",
        "corpus": "text",
        "unit": "text",
        "normaliser": "text",
        "approximate": "bool",
    },
    "training_spectra": {"site": "text", "stable_rank": "float", "energy_above_noise": "float", "rank_kept": "int"}
    | {"overlap_in": "float", "overlap_out": "float", "each": "text"},
    "count_part": {"part": "text", "index": "int", "count": "int"},
    "directions": {"site": "text", "direction": "int"},
    "answers": _FACT
    | {"split": "text", "edit": "text", "share": "float", "answer": "text", "probability": "float", "category": "text"}
    | {"similarity": "float"},
}
_KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda c: pd.api.types.is_string_dtype(c) or pd.api.types.is_object_dtype(c),
    "int": pd.api.types.is_integer_dtype,
    "float": pd.api.types.is_numeric_dtype,
    "bool": pd.api.types.is_bool_dtype,
}


def check(frame: pd.DataFrame, schema: str) -> pd.DataFrame:
    """The frame, if it has the columns of its schema with the right types; others may follow.

    Raises:
        ValueError: a column is missing or of the wrong type; the message names it.
    """
    for column, kind in SCHEMAS[schema].items():
        if column not in frame.columns:
            raise ValueError(f"a table of {schema!r} needs the column {column!r}; it has {', '.join(frame.columns)}")
        if len(frame) and not _KINDS[kind](frame[column]):
            raise ValueError(f"column {column!r} of {schema!r} is {frame[column].dtype}, expected {kind}")
    return frame
