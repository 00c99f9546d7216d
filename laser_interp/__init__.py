"""laser-interp: what does LASER remove from a transformer, and for which facts does that help?

    import laser_interp as li

    model, facts = li.load_model("organism"), li.load_facts("organism")
    laser = li.laser(model, "3.in", rho=0.05)
    scores = li.score(model, facts, {"base": None, "laser": laser, "discarded": laser.discarded()})

Some functions share their module's name (`li.score`, `li.sweep`, `li.spectrum`); the module is
reached as `from laser_interp.score import …`.
"""

from laser_interp.discarded.answers import Continuations, continuations, favoured_answers, path_effects
from laser_interp.discarded.attribution import Attribution, attribute
from laser_interp.edits.edit import (
    Edit,
    band,
    bottom_kept,
    gains,
    laser,
    random_equal_energy,
    random_kept,
    random_subspace,
    same_rank_in_layer,
    same_spectrum_random,
    zeroed,
)
from laser_interp.edits.sites import Site
from laser_interp.edits.spectra import Spectrum, spectrum
from laser_interp.facts.fact_set import Fact, FactSet, load_facts
from laser_interp.facts.published import Task, load_task, own_task
from laser_interp.frequency import Index, Joined, build_index, count, count_infinigram, join_counts
from laser_interp.models.model import Model, load_model
from laser_interp.report.notebook_panel import explore
from laser_interp.report.page import write_report
from laser_interp.scoring.answer_rules import judge, metrics, perplexity, robustness, transfer
from laser_interp.scoring.scorer import score, summarise
from laser_interp.selection.cells import RHOS, Cell
from laser_interp.selection.composition import Composition, compose
from laser_interp.selection.grid_run import Estimate, Selection, Sweep, estimate, sweep
from laser_interp.statistics.association import Association, Comparison, Gain, associate, compare, gain
from laser_interp.studies.tasks import Evaluation, evaluate

__all__ = [
    "RHOS",
    "Association",
    "Attribution",
    "Cell",
    "Comparison",
    "Composition",
    "Continuations",
    "Edit",
    "Estimate",
    "Evaluation",
    "Fact",
    "FactSet",
    "Gain",
    "Index",
    "Joined",
    "Model",
    "Selection",
    "Site",
    "Spectrum",
    "Sweep",
    "Task",
    "associate",
    "attribute",
    "band",
    "bottom_kept",
    "build_index",
    "compare",
    "compose",
    "continuations",
    "count",
    "count_infinigram",
    "estimate",
    "evaluate",
    "explore",
    "favoured_answers",
    "gain",
    "gains",
    "join_counts",
    "judge",
    "laser",
    "load_facts",
    "load_model",
    "load_task",
    "metrics",
    "own_task",
    "path_effects",
    "perplexity",
    "random_equal_energy",
    "random_kept",
    "random_subspace",
    "robustness",
    "same_rank_in_layer",
    "same_spectrum_random",
    "score",
    "spectrum",
    "summarise",
    "sweep",
    "transfer",
    "write_report",
    "zeroed",
]
