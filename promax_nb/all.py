"""Everything a notebook needs: `from promax_nb.all import *`."""

from promax_nb.data.storage import *
from promax_nb.data.interactions import *
from promax_nb.data.saved import *
from promax_nb.data.frames import *
from promax_nb.data.loaders import *
from promax_nb.data.published import *
from promax_nb.data.bookshop import *
from promax_nb.data.audit import *
from promax_nb.profiles.fence import *
from promax_nb.profiles.llm import *
from promax_nb.profiles.local import *
from promax_nb.profiles.template import *
from promax_nb.profiles.answers import *
from promax_nb.profiles.purse import *
from promax_nb.profiles.questions import *
from promax_nb.profiles.ask import *
from promax_nb.profiles.missing import *
from promax_nb.profiles.prompts import *
from promax_nb.profiles.write import *
from promax_nb.retrieval.vectors import *
from promax_nb.retrieval.embed import *
from promax_nb.retrieval.search import *
from promax_nb.retrieval.rerank import *
from promax_nb.retrieval.augment import *
from promax_nb.models.graph import *
from promax_nb.models.distributions import *
from promax_nb.models.losses import *
from promax_nb.models.bases import *
from promax_nb.models.objectives import *
from promax_nb.models.scorers import *
from promax_nb.models.evaluate import *
from promax_nb.models.train import *
from promax_nb.lettingo.histories import *
from promax_nb.lettingo.styles import *
from promax_nb.lettingo.claims import *
from promax_nb.lettingo.explore import *
from promax_nb.lettingo.builtin import *
from promax_nb.lettingo.judge import *
from promax_nb.lettingo.pairs import *
from promax_nb.lettingo.tiny import *
from promax_nb.lettingo.align import *
from promax_nb.lettingo.ablation import *
from promax_nb.lettingo.story import *
from promax_nb.retrieval.vectors import unit_rows
from promax_nb.views.texts import card_text, harmless, label, wrapped
from promax_nb.views.scene import SETTINGS, Scene, as_scene, open_run, toy_scene
from promax_nb.views.neighbours import nearest, neighbours_kept, procrustes, trustworthiness
from promax_nb.views.regions import clusters
from promax_nb.views.maps import Projection, project, project_scene
from promax_nb.views.distributions import distributions, entropies
from promax_nb.views.ranks import retrieval_table
from promax_nb.views.nodes import UNITS, node_table
from promax_nb.views.look import BASE, CATEGORY, FAINT, GREY, MARKS, OTHER, OURS, REST, SERIES, SYMBOL, WORD
from promax_nb.views.figures import before_after, profile_map
from promax_nb.views.one_user import distribution_plot
from promax_nb.views.charts import comparison_plot, loss_curves, sparsity_plot
from promax_nb.views.gains import degree_gain_plot, gain_by, retrieval_plot
from promax_nb.views.population import (
    alignment_uniformity,
    alignment_uniformity_plot,
    divergence_plot,
    entropy_plot,
    population,
)
from promax_nb.views.page import explorer_data, explorer_source, save_html
from promax_nb.views.stills import save_image, still_map
from promax_nb.views.html import *
from promax_nb.views.parts import *
from promax_nb.views.browser import *
from promax_nb.views.explorers import *
from promax_nb.views.mapview import *
from promax_nb.views.pairs import *
from promax_nb.teach import exercise, predict
from promax_nb.experiment import DataConfig, RunConfig, as_table, experiment, load_data, verdict
from promax_nb.cli import lettingo_report
