"""What a first hour needs: `from promax_nb.all import *`.

What is not here is imported from its room, as in `from promax_nb.views.regions import clusters`.
"""

import importlib
import pkgutil
import typing
import warnings

# data: interactions, texts and splits
from promax_nb.data.interactions import RecData, describe
from promax_nb.data.bookshop import toy_data
from promax_nb.data.frames import from_frame
from promax_nb.data import growth as _growth  # gives data its method: data.extend(...)
from promax_nb.data.loaders import from_atomic
from promax_nb.data.published import from_rlmrec
from promax_nb.data.saved import load, save
from promax_nb.data.audit import audit, chance_overlap
from promax_nb.data.storage import write_atomic

# profiles: writers, prompts and what they answered
from promax_nb.profiles.llm import chat
from promax_nb.profiles.local import local
from promax_nb.profiles.template import template
from promax_nb.profiles.questions import store_frame
from promax_nb.profiles.ask import ask
from promax_nb.profiles.purse import Purse
from promax_nb.profiles.prompts import facts, item_prompts, user_prompts
from promax_nb.profiles.fence import material
from promax_nb.profiles.write import write

# retrieval: vectors of profiles and the interactions that they add
from promax_nb.retrieval.embed import encode, whiten
from promax_nb.retrieval.vectors import unit_rows
from promax_nb.retrieval.search import candidates, level_shift
from promax_nb.retrieval.rerank import rerank
from promax_nb.retrieval.augment import augment

# models: bases, objectives, training and comparison
from promax_nb.models.bases import GCCF, LightGCN, MF, Recommender, SimGCL
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.losses import s2dr_loss, sdr_loss
from promax_nb.models.results import load_fit
from promax_nb.models.train import TrainConfig, fit, tune
from promax_nb.models.evaluate import evaluate, held_out, user_metrics
from promax_nb.models.inference import by_sparsity, compare

# recommend: lists in people's own ids
from promax_nb.recommend import fits as _fits  # gives fit results their methods: ours.recommend(...)
from promax_nb.recommend.build import recommender
from promax_nb.recommend.folder import load_recommender

# lettingo: explore, judge, align
from promax_nb.lettingo.histories import split_history
from promax_nb.lettingo.styles import styled
from promax_nb.lettingo.claims import claims, faithfulness, true_tastes
from promax_nb.lettingo.explore import diversity, explore
from promax_nb.lettingo.builtin import fit_judge
from promax_nb.lettingo.panel import no_profile
from promax_nb.lettingo.judge import judge, predictions
from promax_nb.lettingo.reports import sentiment_report
from promax_nb.lettingo.pairs import best_profiles, make_pairs, preflight
from promax_nb.lettingo.tiny import tiny_lm, writer
from promax_nb.lettingo.align_settings import AlignConfig
from promax_nb.lettingo.align import align
from promax_nb.lettingo.ablation import ablation
from promax_nb.lettingo.story import lettingo

# views: maps, figures, pages and widgets
from promax_nb.views.scene import Scene, as_scene, open_run, toy_scene
from promax_nb.views.maps import project, project_scene
from promax_nb.views.naming import name_regions_by
from promax_nb.views.nodes import node_table
from promax_nb.views.figures import before_after, profile_map
from promax_nb.views.one_user import distribution_plot
from promax_nb.views.gains import retrieval_plot
from promax_nb.views.ranks import retrieval_table
from promax_nb.views.page import save_html
from promax_nb.views.stills import save_image
from promax_nb.views.browser import ProfileBrowser
from promax_nb.views.mapview import MapExplorer
from promax_nb.views.whatif import DistributionExplorer
from promax_nb.views.candidates import CandidateExplorer
from promax_nb.views.pairs import PairBrowser
from promax_nb.views.tastebox import TasteBox
from promax_nb.views.workbench import Workbench

# the whole chain, and teaching
from promax_nb.experiment import experiment, load_data
from promax_nb.options import DataConfig, RunConfig
from promax_nb.report import as_table, verdict
from promax_nb.report import write_map
from promax_nb.teach import exercise, predict

__all__ = [
    # data: interactions, texts and splits
    'RecData', 'toy_data', 'from_frame', 'from_atomic', 'from_rlmrec', 'save', 'load', 'describe', 'audit',
    'chance_overlap', 'write_atomic',
    # profiles: writers, prompts and what they answered
    'chat', 'local', 'template', 'ask', 'item_prompts', 'user_prompts', 'facts', 'material', 'Purse',
    'write', 'store_frame',
    # retrieval: vectors of profiles and the interactions that they add
    'encode', 'whiten', 'unit_rows', 'candidates', 'level_shift', 'rerank', 'augment',
    # models: bases, objectives, training and comparison
    'Recommender', 'MF', 'LightGCN', 'GCCF', 'SimGCL', 'BPR', 'ProMax', 'sdr_loss', 's2dr_loss',
    'TrainConfig', 'fit', 'tune', 'load_fit', 'evaluate', 'user_metrics', 'held_out', 'compare',
    'by_sparsity',
    # recommend: lists in people's own ids
    'recommender', 'load_recommender',
    # lettingo: explore, judge, align
    'split_history', 'styled', 'claims', 'faithfulness', 'true_tastes', 'explore', 'diversity', 'fit_judge',
    'no_profile', 'judge', 'predictions', 'sentiment_report', 'make_pairs', 'preflight', 'best_profiles',
    'tiny_lm', 'writer', 'AlignConfig', 'align', 'ablation', 'lettingo',
    # views: maps, figures, pages and widgets
    'Scene', 'as_scene', 'open_run', 'toy_scene', 'project', 'project_scene', 'node_table', 'profile_map',
    'before_after', 'distribution_plot', 'retrieval_table', 'retrieval_plot', 'save_html', 'save_image',
    'name_regions_by',
    'ProfileBrowser', 'MapExplorer', 'DistributionExplorer', 'CandidateExplorer', 'PairBrowser', 'TasteBox',
    # the whole chain, and teaching
    'DataConfig', 'RunConfig', 'load_data', 'experiment', 'as_table', 'verdict', 'write_map', 'exercise',
    'predict',
]


def _home(name: str) -> str | None:
    """The room that lists this name as public."""
    package = importlib.import_module(__package__)
    for found in pkgutil.walk_packages(package.__path__, f'{__package__}.'):
        if found.name == __name__:
            continue
        room = importlib.import_module(found.name)
        if name in getattr(room, '__all__', ()):
            return found.name
    return None


if not typing.TYPE_CHECKING:  # a checker is to see no more than the list above

    def __getattr__(name: str):
        """A name that lives elsewhere is handed out from there, with a word about where."""
        room = None if name.startswith('_') else _home(name)
        if room is None:
            raise AttributeError(f'promax_nb.all has no {name}, and neither has any room of the package.')
        advice = f'{name} is not in promax_nb.all: write `from {room} import {name}`.'
        warnings.warn(advice, FutureWarning, stacklevel=2)
        return getattr(importlib.import_module(room), name)
