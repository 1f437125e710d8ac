"""The taste box without a browser: what is typed, what is shown, what is thrown away."""

import asyncio
import time

import pandas as pd
import pytest
from browser.hostile import TEXTS, hostile_scene, served, small_scene

from promax_nb.recommend.trained import TrainedRecommender
from promax_nb.views.tastebox import Debounced, LikedItems, TasteBox, as_served, moves


@pytest.fixture(scope='module')
def shop():
    return served(small_scene())


def test_what_is_typed_changes_both_lists(shop):
    box = TasteBox(shop, n=5, seconds=0)
    popular = box.after.item.tolist()
    assert box.guest is None and 'popular' in box.how.value
    box.text.value = 'winter walks'
    assert box.after.item.tolist() != popular and len(box.lists['base'].options) == 5
    assert box.after.equals(shop.guest('winter walks').recommend(5))
    assert box.before.head(5).equals(shop.guest('winter walks').recommend(5, side='base'))
    assert box.lists['ours'].options[0][0].startswith(f'1. {box.after.title[0]}')
    box.liked.query.value = 'b007'
    box.liked.found.index = 0
    assert box.guest.known.tolist() == [7] and 'b007' not in box.after.item.tolist()
    box.clear.click()
    assert box.text.value == '' and box.guest is None and not box.liked.ids


def test_a_click_says_why(shop):
    box = TasteBox(shop, 'winter walks', n=5)
    box.lists['ours'].index = 1
    assert box.why.item == box.after.item[1] and box.after.title[1] in box.reasons.value
    box.text.value = 'harbours'
    assert box.why is None and box.reasons.value == ''
    box.ask()
    box.lists['ours'].index = 0
    assert 'popular' in box.reasons.value


def test_without_a_base_there_is_one_list(shop):
    alone = served(small_scene())
    alone.base = None
    box = TasteBox(alone, 'harbours', n=3)
    assert box.before.empty and len(box.after) == 3
    assert 'Before' not in str(box.still())


def test_an_error_is_shown_and_goes(shop, monkeypatch):
    guest = TrainedRecommender.guest

    def sometimes(self, profile=None, **how):
        if profile == 'broken':
            raise ValueError('this taste cannot be read: type another one.')
        return guest(self, profile, **how)

    monkeypatch.setattr(TrainedRecommender, 'guest', sometimes)
    box = TasteBox(shop)
    box.text.value = 'broken'
    assert 'cannot be read' in box.notice.alert.value
    box.text.value = 'harbours'
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


def test_hostile_texts_are_texts():
    box = TasteBox(served(hostile_scene()), '<img src=x onerror=__hit(1)>', n=12)
    for place in range(5):
        box.explain(box.after.item[place])
        assert '<' not in box.after.title[place] or box.after.title[place] not in box.reasons.value
    html = str(box.still())
    for text in (*TEXTS.values(), '<img src=x'):
        assert '<' not in text or text not in html
    assert LikedItems(box.served).search('script')


def test_what_serves_is_found(shop, tmp_path):
    numbers = shop.ours.vectors
    from promax_nb.recommend.build import recommender_of

    plain = recommender_of(numbers, shop.users.user, shop.items.item)
    folder = plain.save(tmp_path / 'run' / 'recommender')
    for place in (folder, tmp_path / 'run', str(folder)):
        assert as_served(place).shape == shop.shape
    with pytest.raises((ValueError, FileNotFoundError)):
        as_served(tmp_path)
    with pytest.raises(ValueError, match='recommends nothing'):
        as_served(7)
