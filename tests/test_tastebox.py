"""The taste box without a browser: what is typed, what is shown, what is thrown away."""

import asyncio
import time

import numpy as np
import pandas as pd
import pytest
from browser.hostile import TEXTS

from promax_nb.recommend.build import recommender_of
from promax_nb.recommend.trained import TrainedRecommender
from promax_nb.views.tastebox import Debounced, LikedItems, TasteBox, as_served, moves


class Reason:
    """Why, in a word."""

    def __init__(self, item):
        self.item = item

    def _repr_html_(self):
        return f'<p>because of {self.item}</p>'


class Guest:
    """Somebody whose list begins with the item that they name."""

    def __init__(self, served, profile, items):
        self.served, self.profile, self.items, self.how = served, profile, items, f'from {profile!r} and {items}'

    def recommend(self, n=10, side='ours', **how):
        scores = self.served.side(side).array([0]) + 0.0
        for row, title in enumerate(self.served.items.title):
            scores[0, row] += 9 * (self.profile or '').count(str(title))
        order = np.argsort(-scores[0], kind='stable')[:n]
        return self.served.list_frame(['guest'], order[None], scores[:, order])

    def explain(self, item):
        return Reason(item)


@pytest.fixture
def served(monkeypatch):
    def guest(self, profile=None, items=None, **how):
        if profile == 'broken':
            raise ValueError('this taste cannot be read: type another one.')
        return Guest(self, profile, items)

    monkeypatch.setattr(TrainedRecommender, 'guest', guest, raising=False)
    rng = np.random.default_rng(0)
    titles = ['Fog', 'Ash', 'Sea', *list(TEXTS.values())[:9]]
    items = pd.DataFrame({'item': [f'b{row}' for row in range(len(titles))], 'title': titles})

    def numbers(n):
        return rng.normal(size=(n, 4)).astype(np.float32)

    ours, base = ((numbers(5), numbers(len(titles))) for _ in range(2))
    return recommender_of(ours, [f'u{row}' for row in range(5)], items, base=base)


def test_what_is_typed_changes_both_lists(served):
    box = TasteBox(served, n=5, seconds=0)
    assert box.guest is None and 'popular' in box.how.value
    box.text.value = 'Sea'
    assert box.after.item[0] == 'b2' and box.lists['ours'].options[0][0].startswith('1. Sea')
    assert box.before.item[0] == 'b2' and len(box.lists['base'].options) == 5
    box.liked.query.value = 'b1'
    box.liked.found.index = 0
    assert box.guest.items == ['b1'] and 'b1' in box.how.value
    box.clear.click()
    assert box.text.value == '' and box.guest is None and not box.liked.ids


def test_a_click_says_why(served):
    box = TasteBox(served, 'Sea', n=5)
    box.lists['ours'].index = 1
    assert box.why.item == box.after.item[1] and 'because of' in box.reasons.value
    box.text.value = 'Ash'
    assert box.why is None and box.reasons.value == ''


def test_without_a_base_there_is_one_list(served):
    served.base = None
    box = TasteBox(served, 'Sea', n=3)
    assert box.before.empty and len(box.after) == 3
    assert 'Before' not in str(box.still())


def test_an_error_is_shown_and_goes(served):
    box = TasteBox(served)
    box.text.value = 'broken'
    assert 'cannot be read' in box.notice.alert.value
    box.text.value = 'Sea'
    assert box.notice.error is None and 'cannot' not in box.notice.alert.value


def test_moves():
    before = pd.DataFrame({'item': list('abc'), 'rank': [1, 2, 3]})
    after = pd.DataFrame({'item': list('cabd'), 'rank': [1, 2, 3, 4]})
    assert moves(before, after) == ['▲ 2', '▼ 1', '▼ 1', 'new']


def test_only_the_last_question_is_answered():
    shown, failed, worked = [], [], []

    def work(text):
        worked.append(text)
        time.sleep(0.02)
        return text.upper()

    async def typing():
        last = Debounced(work, shown.append, failed.append, 0.01)
        for text in ('s', 'se', 'sea'):
            last.ask(text)
        while not worked:
            await asyncio.sleep(0.001)
        last.ask('fog')  # while 'sea' is being worked on: its answer is thrown away
        while last.waiting:
            await asyncio.sleep(0.001)
        last.ask('ash')
        last.cancel()
        await asyncio.sleep(0.1)

    asyncio.run(typing())
    assert shown == ['FOG'] and worked == ['sea', 'fog'] and not failed


def test_hostile_titles_are_texts(served):
    box = TasteBox(served, '<img src=x onerror=alert(1)>', n=12)
    html = str(box.still())
    for text in (*served.items.title, '<img src=x'):
        assert '<' not in text or text not in html
    assert LikedItems(served).search('script')


def test_what_serves_is_found(served, tmp_path):
    folder = served.save(tmp_path / 'run' / 'recommender')
    for place in (folder, tmp_path / 'run', str(folder)):
        assert as_served(place).shape == served.shape
    with pytest.raises(FileNotFoundError):
        as_served(tmp_path)
    with pytest.raises(ValueError, match='recommends nothing'):
        as_served(7)
