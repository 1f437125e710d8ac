"""The recipe for a fifth base, exactly as CONTRIBUTING.md prints it."""
import re
from pathlib import Path

import numpy as np

from promax_nb.data import toy_data
from promax_nb.evaluate import compare
from promax_nb.shape import BPR, ProMax
from promax_nb.train import fit

ROOT = Path(__file__).resolve().parent.parent


def test_a_fifth_base_in_one_cell():
    text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    cells = re.findall(r'```python\n(.*?)```', text, re.S)
    assert len(cells) == 1
    space = {}
    exec(cells[0], space)
    data, rng = toy_data(120, 60), np.random.default_rng(0)
    su, si, extra = rng.normal(size=(120, 8)), rng.normal(size=(60, 8)), data.train * 0
    for objective in (BPR(), ProMax(su, si, extra)):
        result = fit(space['OneHop'](data, dim=8), objective, data, epochs=6, batch=256, lr=.01)
        assert result.history.bpr.iloc[-1] < result.history.bpr.iloc[0] and result.model.mix.item() != 0
    assert 'recall@20' in compare(result, result, data).index


def test_the_map_of_rooms_is_true():
    """CONTRIBUTING's table names every numbered notebook there is, and imports point to lower numbers only."""
    text, books = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8'), sorted((ROOT / 'nbs').glob('[0-9][0-9]_*.ipynb'))
    named = re.findall(r'^\| (\d\d_\w+) \|', text, re.M)
    assert named == [b.stem for b in books]
    number = {b.stem[3:]: int(b.stem[:2]) for b in books}
    for b in books:
        module = (ROOT / 'promax_nb' / f'{b.stem[3:]}.py').read_text(encoding='utf-8')
        for other in re.findall(r'from promax_nb\.(\w+) import', module) + re.findall(r'from \.(\w+) import', module):
            assert number[other] < int(b.stem[:2]), f'{b.stem} imports {other}'
