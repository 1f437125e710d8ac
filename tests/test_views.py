"""Figures of a run, and one file that holds them without letting data become markup."""

import re

import numpy as np
import pandas as pd
import pytest

from promax_nb.views.charts import comparison_plot, loss_curves, sparsity_plot
from promax_nb.views.html import tag
from promax_nb.views.page import save_html
from promax_nb.views.scene import as_scene
from promax_nb.views.texts import card_text, harmless, label, wrapped

HOSTILE = [
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    '</script><script>alert(2)</script>',
    '<b>bold</b>',
    '\u202egnp.exe',
    'a\x00b',
]


def history():
    e = np.arange(1, 10)
    return pd.DataFrame({'epoch': e, 'bpr': 1 / e, 'seconds': 0.1, 'recall@20': np.where(e % 3 == 0, e / 100, np.nan)})


def test_loss_curves_mark_the_kept_epoch():
    f = loss_curves({'base': history()})
    ring = [t for t in f.data if t.mode == 'markers'][0]
    assert list(ring.x) == [9] and f.layout.yaxis.title.text and f.layout.xaxis2.title.text == 'epoch'


def test_a_training_that_was_never_validated_shows_its_losses():
    never = history().assign(**{'recall@20': np.nan})
    names = [t.name for t in loss_curves({'base': never, 'ProMax': history()}).data]
    assert 'base: bpr' in names and 'base: kept' not in names and 'ProMax: kept' in names


def test_a_metric_that_was_not_watched_gets_a_sentence():
    with pytest.raises(ValueError, match="history of base has no column 'ndcg@10'.*recall@20"):
        loss_curves({'base': history()}, 'ndcg@10')


def test_hollow_where_the_interval_includes_zero():
    t = pd.DataFrame(
        {
            'base': 0.1,
            'ours': 0.1,
            'difference': [0.01, 0.01, -0.01],
            'low': [0.001, -0.01, -0.02],
            'high': [0.02, 0.02, -0.001],
        },
        index=['a@1', 'b@1', 'c@1'],
    )
    assert list(comparison_plot(t).data[0].marker.symbol) == ['circle', 'circle-open', 'circle']


@pytest.mark.parametrize('text', HOSTILE)
def test_hostile_text_stays_text(text, tmp_path):
    g = pd.DataFrame(
        {
            'from': [1],
            'to': [2],
            'users': [3],
            'base': [0.1],
            'ours': [0.2],
            'difference': [0.1],
            'low': [0.0],
            'high': [0.2],
            'p': [0.5],
        }
    )
    figures = {text: loss_curves({text: history()}), 'table': text, 'who': sparsity_plot(g, text)}
    page = save_html(figures, tmp_path / 'a.html', title=text).read_text(encoding='utf-8')
    tail = page[page.index('</head>') :]  # behind plotly's own script
    assert not re.search(r'<img src=x|<script>alert|<b>bold', page)
    assert tail.count('<script') == tail.count('</script>') == 2  # one per figure, none from the text


def test_offline_and_atomic(tmp_path):
    p = save_html({'a': loss_curves({'x': history()})}, tmp_path / 'new' / 'a.html')
    assert not re.search(r'<script[^>]+src=|<link[^>]+href=', p.read_text(encoding='utf-8')) and [
        q.name for q in p.parent.iterdir()
    ] == ['a.html']


@pytest.mark.parametrize('nothing', [None, float('nan'), np.float32('nan'), pd.NA, pd.NaT], ids=repr)
def test_what_is_missing_is_no_text(nothing):
    assert harmless(nothing) == card_text(nothing) == label(nothing) == wrapped(nothing) == ''


def test_lists_and_arrays_are_texts_too():
    assert harmless(['a', None]) == "['a', None]" and harmless(np.array([])) == '[]' and harmless(0) == '0'


class Card:
    """Something that can stand on a page without a notebook."""

    def still(self):
        return tag('p', 'a ', tag('b', '<card>'))


def test_pieces_of_html_go_in_as_they_are(tmp_path):
    parts = {'one': tag('p', 'a ', tag('i', 'piece')), 'two': Card(), 'three': '<i>a text</i>'}
    page = save_html(parts, tmp_path / 'a.html').read_text(encoding='utf-8')
    assert '<h2 id="one">one</h2><p>a <i>piece</i></p>' in page
    assert '<h2 id="two">two</h2><p>a <b>&lt;card&gt;</b></p>' in page
    assert '<h2 id="three">three</h2><pre>&lt;i&gt;a text&lt;/i&gt;</pre>' in page


def test_what_is_no_data_gets_a_sentence():
    with pytest.raises(ValueError, match='a tuple is no scene: give a run folder'):
        as_scene((np.ones((3, 2)), np.ones((4, 2))))
