"""Everything a notebook needs: `from promax_nb.all import *`."""
from promax_nb.data.interactions import *
from promax_nb.profiles.llm import *
from promax_nb.profiles.write import *
from promax_nb.retrieval.embed import *
from promax_nb.retrieval.augment import *
from promax_nb.models.bases import *
from promax_nb.models.objectives import *
from promax_nb.models.evaluate import *
from promax_nb.models.train import *
from promax_nb.lettingo.explore import *
from promax_nb.lettingo.judge import *
from promax_nb.lettingo.align import *
from promax_nb.views.scene import *
from promax_nb.views.browser import *
from promax_nb.teach import exercise, predict
from promax_nb.cli import DataConfig, RunConfig, as_table, experiment, lettingo_report, load_data, verdict
