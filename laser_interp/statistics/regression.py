"""Logistic regressions of being fixed (broken, right) on frequency, with an effect of each relation."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from laser_interp.statistics.bootstrap import LEVEL

# What each regression asks: the outcome, and among which prompts.
# What each regression asks: the outcome, and among which prompts.
MODELS: dict[str, tuple[str, str]] = {
    "frequency": ("fixed", "wrong before"),
    "confounders": ("fixed", "wrong before"),
    "pmi": ("fixed", "wrong before"),
    "broken": ("broken", "right before"),
    "accuracy": ("right", "all"),
}
_COLUMNS = ["model", "term", "coefficient", "se", "p", "odds_ratio", "odds_lo", "odds_hi", "n", "n_left_out"]


def regression(rows: pd.DataFrame, models: Sequence[str] | None = None, level: float = LEVEL) -> pd.DataFrame:
    """See `Association.regression`.

    Args:
        models: which of them; None: all that the columns allow.
        level: of the intervals.
    """
    right = rows["top1_before"].astype(bool)
    among = {"wrong before": rows[~right], "right before": rows[right], "all": rows.assign(right=right)}
    known = {"n_subject", "n_object"} <= set(rows.columns)
    if models is None:
        with_edit = ["frequency", *(["confounders", "pmi"] if known else []), "broken"]
        models = with_edit if "fixed" in rows.columns else ["accuracy"]
    tables, problems = [], {}
    for model in models:
        outcome, group = MODELS[model]
        try:
            tables.append(_logistic(among[group], outcome, group, model, level).assign(model=model))
        except ValueError as error:
            problems[model] = str(error)
    out = pd.concat(tables, ignore_index=True)[_COLUMNS] if tables else pd.DataFrame(columns=_COLUMNS)
    out.attrs["problems"] = problems
    return out


def _logistic(chosen: pd.DataFrame, outcome: str, group: str, model: str, level: float) -> pd.DataFrame:
    """One logistic regression.

    Raises:
        ValueError: it cannot be estimated; the message says why.
    """
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

    where = "" if group == "all" else f" {group}"
    if chosen[outcome].nunique() < 2:
        raise ValueError(
            f"of {len(chosen)} prompts{where}, {'all' if len(chosen) and chosen[outcome].any() else 'none'} "
            f"were {outcome}"
        )
    if chosen["n_both"].nunique() < 2:
        raise ValueError(f"all facts{where} have the same frequency")
    # A relation without both outcomes is fitted by its own effect, whatever the frequencies.
    share = chosen.groupby("relation")[outcome].transform("mean")
    used = chosen[(share > 0) & (share < 1)]
    if used.empty:
        raise ValueError(f"within each relation all or no prompts{where} were {outcome}")
    if used["subject"].nunique() < 3:
        raise ValueError(f"only {used['subject'].nunique()} subjects{where} can be compared")
    if model == "pmi":
        design = pd.DataFrame(
            {
                "pmi": np.log(used["n_both"] + 0.5)
                - np.log(used["n_subject"].clip(lower=1))
                - np.log(used["n_object"].clip(lower=1))
            }
        )
    else:
        design = pd.DataFrame({"log10_n_both": np.log10(1 + used["n_both"])})
    if model == "confounders":
        for column in ("n_subject", "n_object"):
            design[f"log_{column}"] = np.log(used[column].clip(lower=1))
    design = design.loc[:, design.nunique() > 1]
    relations = pd.get_dummies(used["relation"], prefix="relation", drop_first=True, dtype=float)
    design = sm.add_constant(pd.concat([design, relations], axis=1), has_constant="add")
    if np.linalg.matrix_rank(np.asarray(design)) < design.shape[1]:
        raise ValueError(f"frequencies and relations are collinear among the prompts{where}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", category=RuntimeWarning)
            warnings.simplefilter("error", category=PerfectSeparationWarning)
            fit = sm.GLM(used[outcome].astype(float), design, family=sm.families.Binomial()).fit(
                cov_type="cluster", cov_kwds={"groups": pd.factorize(used["subject"])[0]}, use_t=True
            )
    except (RuntimeWarning, PerfectSeparationWarning, np.linalg.LinAlgError) as error:
        raise ValueError(f"the fit did not converge ({error})") from error
    interval = fit.conf_int(alpha=1 - level)
    table = pd.DataFrame(
        {
            "coefficient": fit.params,
            "se": fit.bse,
            "p": fit.pvalues,
            "odds_ratio": np.exp(fit.params),
            "odds_lo": np.exp(interval[0]),
            "odds_hi": np.exp(interval[1]),
            "n": len(used),
            "n_left_out": len(chosen) - len(used),
        }
    )
    return table.reset_index(names="term")
