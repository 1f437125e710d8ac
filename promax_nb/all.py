"""Everything a notebook needs: `from promax_nb.all import *`."""
from promax_nb.data import *
from promax_nb.llm import *
from promax_nb.profiles import *
from promax_nb.embed import *
from promax_nb.retrieve import *
from promax_nb.models import *
from promax_nb.shape import *
from promax_nb.evaluate import *
from promax_nb.train import *
from promax_nb.explore import *
from promax_nb.judge import *
from promax_nb.align import *
from promax_nb.views import *
from promax_nb.widgets import *
from promax_nb.teach import exercise, predict
from promax_nb.cli import DataConfig, RunConfig, as_table, experiment, lettingo_report, load_data, verdict
