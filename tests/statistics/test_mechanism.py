"""Three explanations of a change: each is found where it was put in, and not elsewhere."""

import numpy as np
import pandas as pd
import pytest

from laser_interp.statistics.mechanism import explain

N = 400


def scores_of(base, laser, *, masked=(None, None), first=(None, None), zeroed=None, p_generic=(0.4, 0.1)):
    """Scores with the given shares of right answers: the first so many of the facts are right."""

    def rows(edit, right, masked_right, candidate_right, generic):
        of = lambda share: np.arange(N) < round(share * N)  # noqa: E731
        frame = pd.DataFrame({"fact_id": [f"f{i}" for i in range(N)], "prompt_id": 0})
        return frame.assign(
            subject=frame["fact_id"],
            relation="r",
            split="test",
            edit=edit,
            correct=of(right),
            top1=of(right),
            score=of(right).astype(float),
            logprob=-1.0,
            rank=1,
            top10=True,
            generic_masked_top1=of(right if masked_right is None else masked_right),
            generic_masked_logprob=-1.0,
            candidate_top1=of(right if candidate_right is None else candidate_right).astype(float),
            candidate_rank=1.0,
            p_generic=generic,
        )

    parts = [
        rows("base", base, masked[0], first[0], p_generic[0]),
        rows("laser", laser, masked[1], first[1], p_generic[1]),
    ]
    if zeroed is not None:
        parts.append(rows("zeroed", zeroed, None, None, p_generic[1]))
    return pd.concat(parts, ignore_index=True)


def test_suppression_alone():
    found = explain(scores_of(0.1, 0.3, masked=(0.3, 0.3), first=(0.5, 0.5), zeroed=0.29))
    assert (found.suppression, found.rivals, found.chance, found.low_rank_matters) == (True, False, False, False)
    assert found.verdict == "The data support that generic words were suppressed."


def test_rivals_alone_and_zeroing_harms():
    found = explain(scores_of(0.1, 0.3, masked=(0.11, 0.31), first=(0.2, 0.5), zeroed=0.05))
    assert (found.suppression, found.rivals, found.low_rank_matters) == (False, True, True)
    assert "the right answer gained on its rivals" in found.verdict
    assert "interesting case" in found.verdict


def test_both():
    found = explain(scores_of(0.1, 0.3, masked=(0.25, 0.35), first=(0.4, 0.5)))
    assert found.verdict.count(" that ") == 2
    assert found.zeroed is None


def test_chance():
    found = explain(scores_of(0.1, 0.1025, masked=(0.3, 0.3), first=(0.5, 0.5), zeroed=0.05))
    assert (found.chance, found.suppression, found.rivals, found.low_rank_matters) == (True, False, False, False)
    assert found.verdict.startswith("Chance is enough")


def test_a_loss_is_no_chance():
    found = explain(scores_of(0.3, 0.2, zeroed=0.1))
    assert (found.chance, found.suppression, found.rivals, found.low_rank_matters) == (False, False, False, False)
    assert found.verdict == "The edit loses accuracy, by more than chance: there is no gain to explain."


def test_deleting_the_matrix_that_does_almost_as_well_is_not_the_interesting_case():
    found = explain(scores_of(0.1, 0.1175, masked=(0.1, 0.1175), zeroed=0.11))  # 7 fixed, and 4
    assert found.edit.is_shown
    assert not found.zeroed.is_shown
    assert not found.low_rank_matters


def test_neither():
    found = explain(scores_of(0.1, 0.3, masked=(0.1, 0.1), first=(0.5, 0.5)))
    assert found.verdict.startswith("The gain is not chance, and neither")


def test_without_ranks_of_answers():
    scores = scores_of(0.1, 0.3)
    scores["candidate_rank"] = np.nan
    found = explain(scores)
    assert found.among_answers is None
    assert "relation's answers" not in str(found)


def test_the_organism(organism, facts):
    """On the organism generic words were put in on purpose; masking them does as well as LASER."""
    import laser_interp as li

    edits = {"base": None, "laser": li.laser(organism, "3.in", rank=1), "zeroed": li.zeroed(organism, "3.in")}
    found = explain(li.score(organism, facts.split("test"), edits, progress=False))
    assert found.suppression
    assert found.edit.change == pytest.approx(0.25, abs=0.02)
    assert found.p_generic[1] < found.p_generic[0]
