"""Shared fixtures: the organism, loaded once a process, and a cache of spectra of the tests' own."""

import os
import tempfile
from pathlib import Path

os.environ["LASER_INTERP_CACHE"] = tempfile.mkdtemp(prefix="laser-interp-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # two test processes share two cores
# On a busy machine Ray needs more than its own half a minute; it reads the name as it is written here
os.environ["RAY_raylet_start_wait_time_s"] = "180"  # noqa: SIM112

import pytest
import torch
import transformers

import laser_interp as li
from laser_interp.facts.shipped import shipped_dir

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
TESTS = Path(__file__).parent


# The files that take longest, longest first. One process runs a whole file, so that one of these that began last would
# leave the other process with nothing to do. `pytest --durations=0` tells what a file takes.
LONGEST = (
    "parallel/test_ray_cluster.py",
    "studies/test_one_edit.py",
    "project/test_docs.py",
    "models/test_gguf.py",
    "studies/test_trajectory.py",
    "models/test_smollm2.py",
    "project/test_notebooks.py",
    "studies/test_study.py",
    "studies/test_examples.py",
    "frequency/test_scan.py",
    "project/test_lm_eval.py",
    "organism/test_training.py",
    "studies/test_strongest.py",
    "selection/test_search_run.py",
    "storage/test_kills.py",
    "selection/test_race.py",
    "project/test_examples.py",
    "models/test_loading.py",
    "project/test_packaging.py",
    "organism/test_corpus.py",
    "report/test_page.py",
    "plots/test_overlap.py",
    "models/test_more_families.py",
)


def pytest_collection_modifyitems(items):
    order = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(TESTS).as_posix(), len(LONGEST)))


@pytest.fixture(scope="session")
def organism() -> li.Model:
    return li.load_model("organism", device="cpu")


@pytest.fixture(scope="session")
def facts() -> li.FactSet:
    return li.load_facts("organism")


@pytest.fixture(scope="session")
def few_facts(facts, tmp_path_factory):
    """A file with a fifth of the facts, which a command of `preloaded_commands` can find by the organism's name.

    With those of the one subject whom the documentation names.
    """
    some = {fact.fact_id for split in ("validation", "test") for fact in facts.split(split).facts[::5]}
    kept = [fact for fact in facts if fact.fact_id in some or fact.subject == "Mira Tolen"]
    return facts.keep(kept).save(tmp_path_factory.mktemp("few") / "facts.jsonl")


@pytest.fixture(scope="session")
def plain():
    """The organism as plain transformers loads it: nothing of ours in between."""
    folder = shipped_dir("organism")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer


@pytest.fixture
def laser(organism) -> li.Edit:
    return li.laser(organism, "3.in", rho=0.05)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """A random model that can write every published set: (model, folder, name -> task)."""
    from random_models import model_and_tasks

    return model_and_tasks(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def study_of():
    """A study in progress of a model, facts with splits, and an edit."""
    from laser_interp.edits.edit_spec import EditSpec
    from laser_interp.studies.context import StudyContext

    def make(model, facts, edit=None, **settings):
        chosen = None if edit is None else EditSpec.of(edit)
        settings = li.types.StudySettings(**settings)
        return StudyContext(model, li.tasks.own_task(facts), settings, chosen=chosen, progress=False)

    return make


@pytest.fixture(autouse=True)
def _no_hook_left(request):
    """Whatever a test does, the shared model is as it was afterwards."""
    from laser_interp.models.hooks import count_hooks
    from laser_interp.models.in_use import active_edits

    yield
    if "organism" in request.fixturenames:
        model = request.getfixturevalue("organism")
        assert count_hooks(model) == 0
        assert active_edits(model) == {}
