"""Figures for papers: tables in, matplotlib figures out. Nothing is computed here that a table does not hold."""

from laser_interp.plots.answer_by_layer import answer_by_layer as answer_by_layer
from laser_interp.plots.answer_categories import discarded_answers as discarded_answers
from laser_interp.plots.atlas_bars import atlas as atlas
from laser_interp.plots.composition_steps import composition as composition
from laser_interp.plots.control_bars import controls as controls
from laser_interp.plots.decomposition_steps import decomposition as decomposition
from laser_interp.plots.edit_comparison import compared_edits as compared_edits
from laser_interp.plots.frequency_panels import accuracy_by_frequency as accuracy_by_frequency
from laser_interp.plots.frequency_panels import rare_facts as rare_facts
from laser_interp.plots.generic_words_ahead import generic_ahead as generic_ahead
from laser_interp.plots.gradient_map import attribution_map as attribution_map
from laser_interp.plots.loss_by_layer import loss_by_layer as loss_by_layer
from laser_interp.plots.paraphrase_bars import robustness as robustness
from laser_interp.plots.recall_steps import first_recall as first_recall
from laser_interp.plots.registry import FIGURES as FIGURES
from laser_interp.plots.registry import draw as draw
from laser_interp.plots.registry import draw_all as draw_all
from laser_interp.plots.relation_changes import relations as relations
from laser_interp.plots.singular_values import spectrum as spectrum
from laser_interp.plots.slope_points import frequency_slopes as frequency_slopes
from laser_interp.plots.style import WIDTHS as WIDTHS
from laser_interp.plots.style import paper_style as paper_style
from laser_interp.plots.style import style_of as style_of
from laser_interp.plots.training_loss import loss_over_training as loss_over_training
from laser_interp.plots.training_spectra import spectrum_over_training as spectrum_over_training
from laser_interp.plots.transfer_map import transfer as transfer
