"""What the README says first was measured: each number stands in `figures/smollm2/summary.json`."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_first_screen():
    said = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split("## Three commands")[0].split())
    found = json.loads((ROOT / "figures" / "smollm2" / "summary.json").read_text(encoding="utf-8"))
    test, change, why = found["test"], found["change"], found["mechanism"]
    rival, effect = why["with_masks"], found["effects"]["frequency"]

    def share(row):
        return f"{row['accuracy']:.3f}".lstrip("0")

    def points(row):
        return f"{100 * row['change']:+.1f} points [{100 * row['lo']:+.1f}, {100 * row['hi']:+.1f}]"

    expected = [
        f"truncated late matrix ({found['selected']['site']}, {100 * found['selected']['rho']:.0f} % of its rank)",
        f"on {change['n']:,} held-out facts of Wikidata from {share(test['base'])} to {share(test['laser'])}",
        f"({points(change)})",
        f"deleting the whole matrix reaches {share(test['controls']['zeroed'])}",
        f"*unedited* model reaches {share(test['controls']['generic_masked'])}",
        f"cannot be told from none ({points(rival)})",
        f"multiplies the odds by {effect['odds_ratio']:.2f} [{effect['odds_lo']:.2f}, {effect['odds_hi']:.2f}]",
        "its perplexity rises from {:.0f} to {:.0f}".format(*(row["perplexity"] for row in found["perplexity"])),
    ]
    for text in expected:
        assert text in said, text
    # And what is said in words follows from them
    assert why["suppression"]
    assert not why["rivals"]
    assert rival["lo"] < 0 < rival["hi"]
    assert effect["odds_lo"] > 1
    assert found["model"]["quantisation"].startswith("Q4")


def test_the_page_of_the_real_model():
    """Every number in its table of controls is that of the committed table."""
    import pandas as pd

    page = (ROOT / "docs" / "real_model.md").read_text(encoding="utf-8")
    table = pd.read_parquet(ROOT / "figures" / "smollm2" / "tables" / "controls.parquet").set_index("control")
    rows = re.findall(r"^\| [^|]*\(`(\w+)`\) \| ([.\d]+) \| ([.\d]+) \| ([.\d]+) \|", page, re.MULTILINE)
    assert len(rows) >= 6
    for name, accuracy, loss, p_generic in rows:
        row = table.loc[name]
        shown = [f"{row[column]:.3f}".lstrip("0") for column in ("accuracy", "loss", "p_generic")]
        assert [accuracy, loss, p_generic] == shown or name == "generic_masked", name
