"""What the README says first was measured: each number stands in `figures/smollm2/summary.json`."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_first_screen():
    said = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split("## Three commands")[0].split())
    found = json.loads((ROOT / "figures" / "smollm2" / "summary.json").read_text(encoding="utf-8"))
    test, change, why, parts = found["test"], found["change"], found["mechanism"], found["decomposition"]
    slopes, lost = found["slopes"], parts["rivals"]["change"] + parts["rest"]["change"]

    def share(row):
        return f"{row['accuracy']:.3f}".lstrip("0")

    def points(row, name="change"):
        return f"{100 * row[name]:+.1f} points [{100 * row['lo']:+.1f}, {100 * row['hi']:+.1f}]"

    def nats(row, name="change"):
        return f"{row[name]:+.3f} [{row['lo']:+.3f}, {row['hi']:+.3f}] nats"

    def slope(row):
        return f"{100 * row['slope']:+.1f} [{100 * row['lo']:+.1f}, {100 * row['hi']:+.1f}]"

    expected = [
        f"truncated late matrix ({found['selected']['site']}, {100 * found['selected']['rho']:.0f} % of its rank)",
        f"on {change['n']:,} held-out facts of Wikidata from {share(test['base'])} to {share(test['laser'])}",
        f"({points(change)})",
        f"log-probability by {nats(parts['whole'])}",
        f"their part is {nats(parts['generic'])}",
        f"give another {parts['kind']['change']:+.3f}, and {lost:+.3f} go to",
        f"deleting the whole matrix {share(test['controls']['zeroed'])}",
        f"*unedited* model reaches {share(test['controls']['generic_masked'])}",
        f"is worth {nats(why['over_zeroed'])} over deleting it",
        f"log p changes by {nats(slopes['whole'], 'slope')}: no trend is shown",
        f"{slope(slopes['top1'])} points for top-1",
        f"{slope(slopes['top10'])} for top-10",
        "its perplexity rises from {:.0f} to {:.0f}".format(*(row["perplexity"] for row in found["perplexity"])),
    ]
    for text in expected:
        assert text in said, text
    # And what is said in words follows from them
    assert why["suppression"]
    assert slopes["whole"]["lo"] < 0 < slopes["whole"]["hi"]
    assert slopes["top10"]["slope"] < 0 < slopes["top1"]["slope"]
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
