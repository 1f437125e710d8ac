"""What ranx says of a run and its answers. Its loops are compiled at first use, which takes longer than all else here:
NUMBA_DISABLE_JIT=1 lets Python run them as they are, and numba wants to hear that before it is imported."""

import json
import sys
from pathlib import Path

from ranx import Qrels, Run, evaluate

folder, ks = Path(sys.argv[1]), json.loads(sys.argv[2])
answers = Qrels.from_file(str(folder / 'qrels.trec'), kind='trec')
run = Run.from_file(str(folder / 'run.trec'), kind='trec')
metrics = [f'{name}@{k}' for name in ('recall', 'ndcg', 'precision', 'mrr', 'hit_rate') for k in ks]
evaluate(answers, run, metrics, make_comparable=True)
found = {name: {user: float(value) for user, value in run.scores[name].items()} for name in metrics}
(folder / 'said.json').write_text(json.dumps(found), encoding='utf-8')
