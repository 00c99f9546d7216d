"""The main job, as a user runs it, and what it must show."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from preloaded_commands import run_preloaded

from laser_interp.storage.schemas import SCHEMAS
from laser_interp.storage.tables import read_table

pytestmark = pytest.mark.slow

WEIGHT_CONTROLS = {
    "same_spectrum_random",
    "random_subspace",
    "random_kept",
    "random_equal_energy",
    "bottom_kept",
    "zeroed",
    "layer_0",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    done = run_preloaded(["laser-interp", "reproduce", "--out", "here", "--quiet"], folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, json.loads((folder / "here" / "summary.json").read_text())


def test_summary_has_everything(run):
    _, _, s = run
    assert s["model"]["name"] == "organism"
    assert s["model"]["n_params"] == 225_216
    assert re.fullmatch("[0-9a-f]{64}", s["model"]["weights_sha256"])
    assert s["selected"].keys() >= {"cell", "site", "rho", "rank", "validation"}
    rows = {"base": s["test"]["base"], "laser": s["test"]["laser"], "discarded": s["test"]["discarded"]}
    rows |= s["test"]["controls"]
    assert rows.keys() >= WEIGHT_CONTROLS | {"generic_masked"}
    for row in rows.values():
        assert row.keys() >= {"top1", "top10", "loss", "generic_masked_top1", "candidate_top1", "n"}
        assert row["n"] == 400
    assert sum(b["n"] for b in s["by_frequency"]) == 400
    for b in s["by_frequency"]:
        assert b["lo"] <= b["hi"]
        assert 0 <= b["p_fixed_given_wrong"] <= 1
    for name in ("top1", "logprob"):
        value = s["spearman"][name]
        assert -1 <= value["lo"] <= value["rho"] <= value["hi"] <= 1
    assert s["seconds"] > 0


def test_laser_beats_the_model_and_every_control(run):
    _, _, s = run
    laser = s["test"]["laser"]["top1"]
    assert laser - s["test"]["base"]["top1"] >= 0.20
    for name in WEIGHT_CONTROLS:
        assert laser - s["test"]["controls"][name]["top1"] >= 0.20, name
    assert abs(s["control_model"]["own_edit_change"]) <= 0.02
    assert 0.4 < s["control_model"]["base_accuracy"] < 0.7  # far from its ceiling


def test_the_scanner_agrees_with_the_ledger(run):
    assert run[2]["counts"] == {"matched": 400, "mismatched": 0}


def test_its_limits_are_told(run):
    _, out, s = run
    assert s["test"]["controls"]["generic_masked"]["top1"] > s["test"]["laser"]["top1"]
    assert s["discarded"]["same_type"] < 0.05
    assert s["slopes"]["whole"]["lo"] < 0 < s["slopes"]["whole"]["hi"]
    assert s["slopes"]["top1"]["hi"] < 0
    for words in (
        "nats do not",
        "a wrong answer of the right type in 0%",
        f"generic words forbidden without any edit {s['test']['controls']['generic_masked']['accuracy']:.3f}",
    ):
        assert words in out
    (where, names) = re.findall(r"^Figures, in `(\S+)`: (.*)\.$", out, re.MULTILINE)[0]
    for name in names.split(", "):
        assert (run[0] / where / f"{name}.pdf").stat().st_size > 3000
    assert len(names.split(", ")) == 12


def test_numbers_follow_from_the_tables(run):
    folder, _, s = run
    scores = read_table(folder / "here" / "tables" / "scores.parquet", "scores")
    assert scores.attrs["provenance"]["weights_sha256"] == s["model"]["weights_sha256"]
    assert set(scores["split"]) == {"test"}
    for name in ("base", "laser", "discarded", "zeroed"):
        row = s["test"].get(name) or s["test"]["controls"][name]
        assert row["top1"] == pytest.approx(scores.loc[scores["edit"] == name, "top1"].mean())
        assert row["loss"] == pytest.approx(-scores.loc[scores["edit"] == name, "logprob"].mean())
    pivot = scores[scores["edit"].isin(["base", "laser"])].pivot_table(
        index=["fact_id", "prompt_id"], columns="edit", values="top1", aggfunc="first"
    )
    counts = read_table(folder / "here" / "tables" / "counts.parquet", "counts").set_index("fact_id")["n_both"]
    frequency = pivot.index.get_level_values(0).map(counts)
    for b in s["by_frequency"]:
        inside = pivot[(frequency >= b["lo"]) & (frequency <= b["hi"])].astype(bool)
        assert b["n"] == len(inside)
        assert b["base_top1"] == pytest.approx(inside["base"].mean())
        assert b["p_fixed_given_wrong"] == pytest.approx(inside.loc[~inside["base"], "laser"].mean())


def test_paraphrases_and_composition(run):
    folder, out, s = run
    scores = read_table(folder / "here" / "tables" / "scores.parquet", "scores")
    for name in ("base", "laser"):
        right = scores[scores["edit"] == name].groupby("fact_id")["top1"].all()
        told = s["paraphrases"][name]
        assert told["all_right"] == pytest.approx(right.mean())
        assert told["all_right_lo"] < told["all_right"] < told["all_right_hi"]
    more = s["composed"]["over_one"]
    assert more["change"] == pytest.approx(s["composed"]["top1"] - s["test"]["laser"]["top1"])
    assert more["lo"] < more["change"] < more["hi"]
    assert more["in_words"] in out


def test_the_committed_tables_are_those_of_this_run(run):
    """What `figures/organism` shows is what the code finds; other machines round otherwise."""
    folder, _, _ = run
    committed = Path(__file__).parents[2] / "figures" / "organism" / "tables"
    names = {path.stem for path in committed.glob("*.parquet")}
    assert names >= {"controls", "cells", "discarded_categories", "robustness", "composition_by_step", "spectrum"}
    for name in names - {"transfer"}:  # which has a notebook of its own
        old, new = read_table(committed / f"{name}.parquet"), read_table(folder / "here" / "tables" / f"{name}.parquet")
        assert list(old.columns) == list(new.columns), name
        if name == "composition_by_step":  # greed may part at a tie
            continue
        assert len(old) == len(new), name
        for column in ("top1", "generic", "all_right", "gradient", "singular_value"):
            if column in old.columns:
                assert (old[column] - new[column]).abs().max() < 0.02, (name, column)


def test_the_same_command_resumes_and_says_the_same(run):
    folder, _, first = run
    done = run_preloaded(["laser-interp", "reproduce", "--out", "here", "--quiet"], folder)
    assert done.returncode == 0, done.stderr
    again = json.loads((folder / "here" / "summary.json").read_text())
    assert again["seconds"] < first["seconds"]
    of_this_run = ("seconds", "checksum")  # the checksum is of the seconds too
    first = {k: v for k, v in first.items() if k not in of_this_run}
    assert {k: v for k, v in again.items() if k not in of_this_run} == first


def test_a_folder_of_another_run_is_refused(tmp_path):
    from laser_interp.cli.app import main

    (tmp_path / "run.json").write_text('{"model": "another"}')
    assert main(["reproduce", "--quiet", "--out", str(tmp_path)]) == 2


def test_every_table_has_a_schema_or_is_its_own(run):
    folder, _, _ = run
    for path in (folder / "here" / "tables").iterdir():
        frame = read_table(path)
        assert isinstance(frame, pd.DataFrame)
        schema = frame.attrs["provenance"]["schema"]
        assert schema is None or schema in SCHEMAS
