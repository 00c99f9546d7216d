"""What an edit changes directly, and what it changes through the rest of the model."""

import numpy as np
import pandas as pd

from laser_interp.edits.edit import Edit
from laser_interp.facts.tasks import AnyFacts, facts_of
from laser_interp.models.model import Model
from laser_interp.scoring.scorer import Scorer


def path_effects(model: Model, facts: AnyFacts, edit: Edit, *, progress: bool = True) -> pd.DataFrame:
    """What an edit changes directly, and what it changes through the rest of the model.

    Returns:
        One row per (fact, prompt, path), `path` in "total", "direct", "indirect" (see `Edit.via`): the change of
        log p(answer), `d_logprob`, and of log p(a generic word), `d_log_generic`. For an edit of one
        site, the last two add up to the first in the final residual stream. After the final norm and the softmax they
        need not.

    Raises:
        ValueError: a site without a direct path.

    Example:
        >>> li.path_effects(model, test, li.laser(model, "2.out", rho=0.2)).groupby("path")["d_logprob"].mean()
    """
    facts = facts_of(facts)
    runs = {"base": None, "total": edit, "direct": edit.via("direct"), "indirect": edit.via("indirect")}
    scores = dict(Scorer(model, facts, candidates=False).run(runs, progress=progress))
    base = scores.pop("base")
    keys = ["fact_id", "prompt_id", "subject", "relation", "object", "split"]
    return pd.concat(
        [
            frame[keys].assign(
                path=path,
                d_logprob=frame["logprob"] - base["logprob"],
                d_log_generic=np.log(frame["p_generic"]) - np.log(base["p_generic"]),
            )
            for path, frame in scores.items()
        ],
        ignore_index=True,
    )
