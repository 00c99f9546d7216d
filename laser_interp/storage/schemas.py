"""The columns of every table that is written, in one place."""

from collections.abc import Callable
from typing import Any

import pandas as pd


def _columns(**names_of_kind: str) -> dict[str, str]:
    """Column -> kind, from the names of the columns of each kind."""
    return {name: kind for kind, names in names_of_kind.items() for name in names.split()}


_FACT = _columns(text="fact_id subject relation object", int="prompt_id")
_EDIT = _columns(text="site kind", float="rho rank_kept alpha")
_ANSWER = _columns(
    text="prediction top_answer category",
    bool="correct generic_masked_top1",
    int="rank",
    float="score top_prob logprob p_generic candidate_rank",
)
_MORE = _columns(
    text="split edit",
    bool="top1 top5 top10 first_is_generic",
    int="generic_masked_rank top_token n_answer_tokens",
    float="frequency generic_masked_logprob candidate_top1 generic_logprob first_logprob kind_logprob margin "
    "logprob_per_token",
)

SCHEMAS: dict[str, dict[str, str]] = {
    "scores": _FACT | _EDIT | _ANSWER | _MORE,
    "search_part": _columns(text="cell fact_id subject split", int="prompt_id") | _EDIT | _ANSWER,
    "text_loss": _columns(float="perplexity loss n_tokens"),
    "screening": _columns(bool="in_bfloat16"),
    "gains": _columns(text="site", int="direction", float="gain"),
    "course": _columns(int="step", float="logprob held_out"),
    "proposal": _columns(text="site", int="rank", float="rho predicted"),
    "steps": _columns(text="site edit", int="step n_not_finite", float="rho rank_kept score loss", bool="kept"),
    "cells": {"cell": "text"}
    | _EDIT
    | {"layer": "float", "matrix": "text", "split": "text", "n": "int"}
    | _columns(float="score accuracy top1 top5 top10 loss loss_change_se p_generic generic_masked_top1 candidate_top1")
    | {"n_not_finite": "int"},  # in the order in which they are shown
    "counts": _columns(
        text="fact_id corpus unit normaliser", int="n_docs n_subject n_object n_both", bool="approximate"
    ),
    "training_spectra": _columns(
        text="site each", float="stable_rank energy_above_noise overlap_in overlap_out", int="rank_kept"
    ),
    "count_part": _columns(int="index count"),
    "directions": _columns(text="site", int="direction"),
    "answers": _FACT | _columns(text="split edit answer category", float="share probability similarity"),
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
