"""One store of scores: whoever asks, each edit is scored once on each fact, and what is recalled is what was scored."""

import pandas as pd
import pytest

import laser_interp as li
from laser_interp.edits.edit_spec import EditSpec
from laser_interp.selection.execution import Worker
from laser_interp.selection.score_store import ScoreStore, text_of
from laser_interp.selection.settings import SearchSettings

SETTINGS = {"matrices": "in", "layers": (2, 3), "rhos": (0.4, 0.05), "n_draws": 1, "n_permutations": 9}


@pytest.fixture
def scored(monkeypatch):
    """Everything that is scored in the model's own numbers: (edit, fact, whether candidates were ranked)."""
    asked = []
    scores = Worker.scores

    def noted(self, unit, tick=None):
        if not unit.screened:
            facts = self.shards[unit.shard]
            asked.extend(
                (text_of(cell), fact, self.ranks(unit.shard)) for cell in unit.cells or (None,) for fact in facts
            )
        return scores(self, unit, tick)

    monkeypatch.setattr(Worker, "scores", noted)
    return asked


@pytest.mark.slow
@pytest.mark.parametrize(("method", "resumed"), [("race", True), ("grid", False)])
def test_a_study_scores_each_edit_once_on_each_fact(organism, few_facts, scored, tmp_path, method, resumed):
    facts = li.load_facts(few_facts)
    out = tmp_path / "run" if resumed else None
    study = li.study(organism, facts, **SETTINGS, method=method, subject="both", out=out, progress=False)
    assert len(scored) == len(set(scored))
    known = set()
    for edit, fact, ranked in scored:
        assert ranked or (edit, fact) not in known  # ranks are a reason to score again; to have none is not
        known.add((edit, fact))
    if out is not None:
        scored.clear()
        again = li.study(organism, facts, **SETTINGS, method=method, subject="both", out=out, progress=False)
        assert not scored
        for name, table in study.tables.items():
            pd.testing.assert_frame_equal(table, again.tables[name], check_dtype=False)


def test_what_a_search_scored_is_what_a_question_would_score(organism, few_facts):
    task = li.tasks.own_task(li.load_facts(few_facts))
    alone, shared = (ScoreStore(organism, task, SearchSettings(), progress=False) for _ in range(2))
    spec = EditSpec.parse("3.in laser rho=0.05 rank=3")
    facts = task.facts.split("validation")
    for half in (facts[1::2], facts[::2]):  # in another order than they are asked
        shared.remember(half, spec, True, alone.scores(half, {"laser": spec}))
    found, expected = (store.scores(facts, {"laser": spec}) for store in (shared, alone))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-6)
    assert shared.recall(facts, spec, True) is not None
    assert shared.recall(facts, None, False) is None  # another edit


@pytest.mark.slow
def test_scores_of_a_fact_with_another_prompt_are_not_recalled(organism, few_facts):
    task = li.tasks.own_task(li.load_facts(few_facts))
    store = ScoreStore(organism, task, SearchSettings(), progress=False)
    facts = task.facts.split("test")
    scores = store.scores(facts, {"base": None})
    shown = facts.with_prefix("Now: ")
    assert store.recall(shown, None, False) is None
    assert (store.scores(shown, {"base": None})["logprob"] != scores["logprob"]).any()


def test_scores_without_ranks_do_not_answer_a_question_for_ranks(organism, few_facts):
    task = li.tasks.own_task(li.load_facts(few_facts))
    store = ScoreStore(organism, task, SearchSettings(), progress=False)
    facts = task.facts.split("test")
    assert store.scores(facts, {"base": None}, candidates=False)["candidate_rank"].isna().all()
    assert store.scores(facts, {"base": None})["candidate_rank"].notna().all()
    assert store.scores(facts, {"base": None}, candidates=False)["candidate_rank"].notna().all()


@pytest.mark.slow
def test_a_study_without_candidates_ends_with_its_report(organism, few_facts):
    """Answers are then not ranked among those of their relation, and the report does not speak of it."""
    facts = li.load_facts(few_facts)
    study = li.study(organism, facts, **SETTINGS, candidates=False, compose=False, progress=False)
    assert "## Where the gain comes from" in study.report
    assert "among its relation's answers" not in study.report


def test_each_edit_has_a_file_of_its_own(organism, few_facts, tmp_path):
    """What one store kept in a folder is what the next one reads, edit by edit, with and without ranks."""
    task = li.tasks.own_task(li.load_facts(few_facts))
    facts = task.facts.split("validation")[:6]
    edits = {"base": None} | {name: EditSpec.parse(f"{name}.in laser rho=0.05 rank=3") for name in ("3", "2")}
    first, again = (ScoreStore(organism, task, SearchSettings(), out=tmp_path, progress=False) for _ in range(2))
    for ranked in (False, True):
        scored, found = (store.scores(facts, edits, candidates=ranked) for store in (first, again))
        pd.testing.assert_frame_equal(scored, found, check_dtype=False)
        assert found.groupby("edit")["logprob"].sum().nunique() == 3
    assert len({*tmp_path.rglob("*.parquet")}) >= 6
