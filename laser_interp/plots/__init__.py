"""Figures for papers: tables in, matplotlib figures out. Nothing is computed here that a table does not hold."""

from laser_interp.plots.answer_categories import discarded_answers
from laser_interp.plots.atlas_bars import atlas
from laser_interp.plots.composition_steps import composition
from laser_interp.plots.control_bars import controls
from laser_interp.plots.decomposition_steps import decomposition
from laser_interp.plots.edit_comparison import compared_edits
from laser_interp.plots.frequency_panels import accuracy_by_frequency, rare_facts
from laser_interp.plots.generic_words_ahead import generic_ahead
from laser_interp.plots.gradient_map import attribution_map
from laser_interp.plots.loss_by_layer import loss_by_layer
from laser_interp.plots.paraphrase_bars import robustness
from laser_interp.plots.recall_steps import first_recall
from laser_interp.plots.registry import FIGURES, draw, draw_all
from laser_interp.plots.relation_changes import relations
from laser_interp.plots.singular_values import spectrum
from laser_interp.plots.slope_points import frequency_slopes
from laser_interp.plots.style import WIDTHS, paper_style, style_of
from laser_interp.plots.training_loss import loss_over_training
from laser_interp.plots.training_spectra import spectrum_over_training
from laser_interp.plots.transfer_map import transfer

__all__ = [
    "FIGURES",
    "WIDTHS",
    "accuracy_by_frequency",
    "atlas",
    "attribution_map",
    "compared_edits",
    "composition",
    "controls",
    "decomposition",
    "discarded_answers",
    "draw",
    "draw_all",
    "first_recall",
    "frequency_slopes",
    "generic_ahead",
    "loss_by_layer",
    "loss_over_training",
    "paper_style",
    "rare_facts",
    "relations",
    "robustness",
    "spectrum",
    "spectrum_over_training",
    "style_of",
    "transfer",
]
