"""What the README and the page of the real models say was measured: each number stands in a committed `summary.json`.

`python tests/project/test_readme_numbers.py` prints the README's table from the committed numbers.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODELS = {"SmolLM2 135M": "smollm2", "Gemma 3 270M": "gemma3-270m"}


def summary(name):
    return json.loads((ROOT / "figures" / name / "summary.json").read_text(encoding="utf-8"))


def share(row):
    return f"{row['accuracy']:.3f}".lstrip("0")


def points(row):
    return f"{100 * row['change']:+.1f} points [{100 * row['lo']:+.1f}, {100 * row['hi']:+.1f}]"


def nats(row, name="change"):
    return f"{row[name]:+.3f} [{row['lo']:+.3f}, {row['hi']:+.3f}]"


def examples(found):
    (row,) = [row for row in found["prompts"] if row["prompts"] == "3 examples before"]
    return row


def examples_alone(found):
    return examples(found)["base"]


def edited(found):
    return found["test"]["laser"]


def part(name):
    return lambda found: nats(found["decomposition"][name])


ROWS = {
    "the edit": lambda found: f"{found['selected']['site'].replace('+', ', ')}",
    "right answers as trained": lambda found: share(found["test"]["base"]),
    "… under the edit": lambda found: f"{share(found['test']['laser'])}, {points(found['change'])}",
    "… as trained, generic words forbidden": lambda found: share(found["test"]["controls"]["generic_masked"]),
    "… the whole matrices deleted": lambda found: share(found["test"]["controls"]["zeroed"]),
    "… as trained, three examples in the prompt": lambda found: share(examples(found)["base"]),
    "… under the edit, three examples in the prompt": lambda found: share(examples(found)["laser"]),
    "change of log p(answer), nats": part("whole"),
    "… of it generic words": part("generic"),
    "… of it the kind of answer": part("kind"),
    "… of it rivals of the same kind": part("rivals"),
    "… of it further tokens of the answer": part("rest"),
    "… more than deleting the matrices": lambda found: nats(found["mechanism"]["over_zeroed"]),
    "… of the edit, three examples in the prompt": lambda found: (
        "{edit_nats:+.3f} [{edit_nats_lo:+.3f}, {edit_nats_hi:+.3f}]".format(**examples(found))
    ),
    "… for each tenfold frequency": lambda found: nats(found["slopes"]["whole"], "slope"),
    "… for each tenfold frequency, in log-odds": lambda found: nats(found["slopes"]["log_odds"], "slope"),
    "… the same, with generic words forbidden": lambda found: nats(found["slopes"]["masked_log_odds"], "slope"),
    "… slope of log-odds, compared with deleting the matrices": lambda found: nats(
        found["slope_over_deleted"], "slope"
    ),
    "perplexity of running text": lambda found: "{:.0f} → {:.0f}".format(
        *(row["perplexity"] for row in found["perplexity"][:2])
    ),
}


def table():
    found = [summary(name) for name in MODELS.values()]
    lines = [f"| | {' | '.join(MODELS)} |", "|---" * (1 + len(MODELS)) + "|"]
    return (
        "\n".join(lines + [f"| {label} | {' | '.join(of(one) for one in found)} |" for label, of in ROWS.items()])
        .replace("+0.", "+.")
        .replace("-0.", "-.")
    )


def test_the_results():
    said = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table() in said
    first = said.split("## Documentation")[0]
    assert first.count("\n") < 60
    reached = [[share(of(summary(name))) for name in MODELS.values()] for of in (examples_alone, edited)]
    assert "({} and {} right, where the edits reach {} and {})".format(*reached[0], *reached[1]) in first
    # And what is said in words follows from it
    smol, gemma = (summary(name) for name in MODELS.values())
    assert smol["test"]["base"]["n"] == gemma["test"]["base"]["n"] == 1652
    assert smol["mechanism"]["suppression"]
    assert "1,652" in said
    for found in (smol, gemma):
        row = examples(found)
        assert row["n"] == 400
        assert row["base"]["accuracy"] > found["test"]["laser"]["accuracy"] > found["test"]["base"]["accuracy"]
        assert row["edit_nats_hi"] < 0
        before, after = (row["perplexity"] for row in found["perplexity"][:2])
        assert after > before
        assert found["model"]["quantisation"]
    assert smol["slopes"]["whole"]["lo"] < 0 < smol["slopes"]["whole"]["hi"]
    assert smol["slopes"]["log_odds"]["lo"] < 0 < smol["slopes"]["log_odds"]["hi"]
    assert gemma["slopes"]["whole"]["lo"] > 0
    assert gemma["slopes"]["log_odds"]["lo"] > 0
    assert gemma["slopes"]["masked_log_odds"]["lo"] > 0
    assert gemma["slope_over_deleted"]["hi"] < 0  # rare facts
    assert smol["slope_over_deleted"]["lo"] < 0 < smol["slope_over_deleted"]["hi"]
    assert gemma["mechanism"]["low_rank_matters"]
    assert gemma["mechanism"]["over_zeroed"]["change"] > 10 * smol["mechanism"]["over_zeroed"]["change"]


def test_the_page_of_the_real_models():
    """Every number in its tables of controls is that of a committed table."""
    import pandas as pd

    page = (ROOT / "docs" / "real_model.md").read_text(encoding="utf-8")
    for name, text in zip(("smollm2", "gemma3-270m"), page.split("## Gemma 3 270M"), strict=True):
        path = ROOT / "figures" / name / "tables" / "controls.parquet"
        controls = pd.read_parquet(path).set_index("control")
        rows = re.findall(r"^\| [^|]*\(`(\w+)`\) \| ([.\d]+) \| ([.\d]+) \| ([.\d]+) \|", text, re.MULTILINE)
        assert len(rows) >= 6
        for control, accuracy, loss, p_generic in rows:
            row = controls.loc[control]
            shown = [f"{row[column]:.3f}".lstrip("0") for column in ("accuracy", "loss", "p_generic")]
            assert [accuracy, loss, p_generic] == shown or control == "generic_masked", control


if __name__ == "__main__":
    print(table())
