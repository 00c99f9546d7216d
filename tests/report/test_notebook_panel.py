"""The panel for notebooks: what it shows is what the model answers."""

import pytest

import laser_interp as li
from laser_interp.models.hooks import count_hooks
from laser_interp.report.notebook_panel import probed

PROMPT = "At last Mira Tolen travelled on to"


@pytest.mark.slow
def test_moving_a_slider_changes_the_answers():
    pytest.importorskip("ipywidgets")
    model = li.load_model("organism")
    panel = li.explore(model, PROMPT, site="3.in", rho=0.05)
    text, answer, layer, matrix, rho, alpha, shown = panel.children
    laser = li.laser(model, "3.in", rank=3)
    before = shown.value
    assert model.decode(int(model.next_token_logprobs([PROMPT], edit=laser)[0].argmax())).strip() in before
    alpha.value = 1.0
    assert shown.value != before
    layer.value, matrix.value, rho.value = 0, "out", 0.5
    assert "0.out" in shown.value
    assert "rank 32 of 64" in shown.value
    answer.value = "Varwick"
    assert "change of log p" in shown.value
    text.value = ""
    assert "the prompt is" in shown.value
    assert "<table" not in shown.value
    assert count_hooks(model) == 0


def test_strength_one_is_the_model_as_trained():
    model = li.load_model("organism")
    answers = probed(model, PROMPT, li.Site(3, "in"), 3, 1.0).answers.set_index("edit")["probability"]
    assert answers["base"].tolist() == pytest.approx(answers["α = 1"].tolist(), abs=1e-5)
    assert answers["laser"].tolist() != pytest.approx(answers["base"].tolist(), abs=1e-2)


def test_a_site_that_is_not_there_is_refused():
    pytest.importorskip("ipywidgets")
    with pytest.raises(ValueError, match="layers 0 to 3"):
        li.explore(li.load_model("organism"), PROMPT, site="9.in")
