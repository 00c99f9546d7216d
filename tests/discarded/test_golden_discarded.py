"""Golden numbers of what is said of discarded directions; see `golden_numbers`."""

import numpy as np
import pytest
from golden_numbers import check_golden, refused

import laser_interp as li
from laser_interp.discarded.answers import category_shares, neighbour_threshold
from laser_interp.discarded.direction_tokens import bands, importance, read_band, stability


@pytest.fixture(scope="module")
def some(facts):
    return facts.keep(facts.facts[::50])


@pytest.fixture(scope="module")
def attribution(organism, some):
    return li.attribute(organism, some, ["3.in", "1.q"], progress=False)


def test_golden_attribution(organism, some, attribution):
    summary = attribution.summary()
    numbers = {
        "summary": summary.groupby("site", sort=False).head(8),
        "by relation": attribution.summary("relation").groupby(["site", "group"], sort=False).head(1),
        "proposed": attribution.propose(rhos=[0.4, 0.1, 0.01]),
        "against ablation": attribution.against_ablation(organism, some, "3.in", block=16, progress=False),
        "spread": attribution.against_ablation(organism, some, block=8, n_blocks=3, progress=False),
        "at an edit": li.attribute(organism, some, "3.in", edit=li.laser(organism, "3.in", rho=0.05), progress=False)
        .summary()
        .head(6),
        "in blocks": li.attribute(organism, some, "3.in", blocks=4, progress=False).propose(rhos=[0.4, 0.1]),
        "html": attribution._repr_html_()[:80],
    }
    assert {of_site.dtype for of_site in attribution.gradients.values()} == {np.dtype("float32")}  # as the model's
    assert "<th></th>" not in attribution._repr_html_()  # rows without numbers
    check_golden("attribution", numbers, tolerance=2e-3)


def test_golden_answers(organism, some):
    laser = li.laser(organism, "3.in", rho=0.05)
    found = li.favoured_answers(organism, some, laser, shares=(0.5, 1.0), progress=False)
    numbers = {
        "answers": found.drop(columns=["subject", "relation", "object"]).head(24),
        "shares": category_shares(found),
    }
    told = li.continuations(
        organism,
        sorted([some.facts[0].prompt, some.facts[1].prompt], reverse=True),
        laser,
        max_new_tokens=4,
        alphas=[0.5],
    )
    numbers["continuations"] = repr(told)
    numbers["paths"] = li.path_effects(organism, some, li.laser(organism, "1.out", rho=0.1), progress=False)
    check_golden("discarded answers", numbers, tolerance=2e-3)


def test_golden_directions(organism, some):
    model, known = organism, li.spectrum(organism, "3.out")
    numbers = {
        "bands": bands(known),
        "read": read_band(model, "3.out", 0, 3, k=5),
        "read at the input": read_band(model, "1.in", 2, 5, k=4),
        "stability": stability(model, "3.out", [(0, 1), (0, 4)], n_draws=3, seed=1),
        "importance": importance(model, some, "3.out").head(5),
        "neighbours": neighbour_threshold(model, some, 0.05, n=500),
    }
    check_golden("directions", numbers, tolerance=2e-3)


def test_golden_probe(organism):
    laser = li.laser(organism, "3.in", rho=0.05)
    found = li.probe(organism, "Once Mira Tolen was born in", laser, answer="Varwick", rivals=["Brimmere"], k=3)
    tables = ("answers", "summary", "parts", "layers", "directions")
    numbers = {name: getattr(found, name) for name in tables} | {
        "words": repr(found),
        "html": found._repr_html_()[:400],
    }
    plain = li.probe(organism, "Once Mira Tolen was born in", None, k=2)
    check_golden("probe", numbers | {"without an edit": repr(plain)}, tolerance=2e-3)


def test_golden_selective_edits(organism, facts, attribution):
    model = organism
    made = {
        "four": li.selective(model, attribution, "3.in", n=4),
        "a tenth of the energy": li.selective(model, attribution, "3.in", energy=0.1),
    }
    numbers = {
        name: [edit.parts[edit.sites[0]].gains.sum().item(), edit.parts[edit.sites[0]].removed_energy]
        for name, edit in made.items()
    }
    few = facts.keep([*facts.split("validation").facts[:6], *facts.split("test").facts[:6]])
    own = li.attribute(model, few, "3.in", progress=False)
    edits, table = li.choose_selective(model, few, own, "3.in", rank=3, counts=(1, 8, 32), progress=False)
    check_golden("selective edits", numbers | {"chosen": table, "edits": list(edits)}, tolerance=2e-3)


def test_golden_refusals_of_directions(organism, facts, some, attribution):
    model = organism
    calls = {
        "a band beyond the rank": lambda: read_band(model, "3.out", 3, 99),
        "both n and energy": lambda: li.selective(model, attribution, "3.in", n=1, energy=0.1),
        "neither": lambda: li.selective(model, attribution, "3.in"),
        "another site": lambda: li.selective(model, attribution, "2.in", n=1),
        "n of 0": lambda: li.selective(model, attribution, "3.in", n=0),
        "other facts": lambda: attribution.against_ablation(model, facts),
        "labels of other prompts": lambda: attribution.summary(["a"]),
        "a share of 1": lambda: neighbour_threshold(model, some, 1.0),
        "no validation facts": lambda: li.choose_selective(
            model,
            facts,
            li.attribute(model, facts.keep(facts.split("test").facts[:2]), "3.in", progress=False),
            "3.in",
            3,
        ),
    }
    check_golden("refused directions", {what: refused(call) for what, call in calls.items()})
