"""People and findings in plain HTML: lists as tested, claims with their evidence, small pages, hostile texts."""

import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from browser.hostile import TEXTS, hostile_scene, small_scene

from promax_nb.models.evaluate import ranked, user_metrics
from promax_nb.models.inference import by_sparsity, compare
from promax_nb.retrieval.vectors import unit_rows
from promax_nb.views.evidence import CONTRADICTED, SUPPORTED, UNSUPPORTED, Histories, claims_html, claims_of
from promax_nb.views.findings import audit_html, comparison_html, headline_html, helped_html, protocol_html, six_html
from promax_nb.views.nodes import gains_of_users
from promax_nb.views.packing import won_and_lost
from promax_nb.views.person import (
    fallen_html,
    lists_of,
    packed_people,
    person_html,
    person_scores,
    places_of,
    six_people,
    slopes_html,
)
from promax_nb.views.plain import curves_html, download_link, forest_html
from promax_nb.views.scene import Scene, toy_scene

TAGS = set('div p b i span ul ol li details summary bdi small svg line path circle figure figcaption'.split())
TAGS |= set('table thead tbody tr th td blockquote a caption pre h3'.split())


class Reader(HTMLParser):
    """Elements that no builder makes, and attributes that act, as a browser reads them."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list = []
        self.feed(html)

    def handle_starttag(self, name, attributes):
        self.found += [name] * (name not in TAGS)
        for key, value in attributes:
            acts = key.startswith('on') or key in ('href', 'src', 'srcdoc', 'action')
            if acts and not (value or '').startswith('data:application/json;base64,'):
                self.found.append(f'{name} {key}')


def foreign(html: str) -> list:
    return Reader(html).found


@pytest.fixture(scope='module')
def scene():
    return toy_scene(120, 80, epochs=8)


def test_lists_are_those_of_the_test(scene):
    """Hits among the first twenty are the recall that is reported; known items are on no list."""
    for side in ('before', 'after'):
        tested = user_metrics(ranked(getattr(scene, side), scene.data), scene.data, ks=(20,))[0]['recall@20']
        for user, recall in tested.items():
            slots = lists_of(scene, user, 20)[side]
            assert sum(slot.hit for slot in slots) == pytest.approx(recall * scene.data.test[[user]].nnz)
            known = (scene.data.train + scene.data.valid)[[user]].indices
            assert not {slot.item for slot in slots} & set(known.tolist())


def test_a_rank_on_the_other_side_is_the_place_there(scene):
    lists = lists_of(scene, 5, 80)
    places = {slot.item: slot.rank for slot in lists['after']}
    assert len(places) > 60
    for slot in lists['before']:
        assert abs(places[slot.item] - slot.ranks['after']) <= 0, 'no ties in trained scores'


def test_one_side_alone_and_none(scene):
    alone = dataclasses.replace(scene, after=[])
    assert lists_of(alone, 5)['after'] == [] and 'After' not in slopes_html(alone, lists_of(alone, 5))
    bare = Scene(scene.data)
    assert 'Nothing was trained' in person_html(bare, 5) and packed_people(bare) is None


def test_a_claim_is_held_against_the_events(scene):
    """Counted anew from the tables, for everybody: liked and other events with the value decide."""
    past, items, seen = Histories(scene.data), scene.data.items, set()
    for user in range(0, scene.data.n_users, 5):
        events = past.of('user', user)
        for claim in claims_of(scene, 'user', user, events):
            if claim.text not in set(items.genre.str.split(', ').explode()):
                continue
            has = items.genre.str.split(', ').map(lambda own, text=claim.text: text in own)
            having = events[has[events['item']].to_numpy()]
            good, other = int(having.liked.sum()), int((~having.liked).sum())
            balance = np.sign(good - other) * (1 if claim.liked else -1)
            assert claim.state == {1: SUPPORTED, 0: UNSUPPORTED, -1: CONTRADICTED}[int(balance)]
            seen.add((claim.liked, claim.state))
    assert {(True, SUPPORTED), (False, SUPPORTED)} <= seen


def test_a_liar_is_contradicted(scene):
    """Positive control: the same claims turned round change their sign, and inventions are unsupported."""
    past = Histories(scene.data).of('user', 7)
    true = [claim for claim in claims_of(scene, 'user', 7, past) if claim.liked and claim.state == SUPPORTED]
    texts = scene.users.profile.tolist()
    texts[7] = 'Avoids ' + ', '.join(claim.text for claim in true)
    lied = claims_of(dataclasses.replace(scene, users=texts), 'user', 7, past)
    assert len(lied) == len(true) and {claim.state for claim in lied} == {CONTRADICTED}
    foreign_title = next(title for row, title in scene.data.items.title.items() if row not in set(past['item']))
    texts[7] = f"Liked '{foreign_title}'."
    assert claims_of(dataclasses.replace(scene, users=texts), 'user', 7, past)[0].state == UNSUPPORTED


def test_six_people_are_the_extremes(scene):
    lists = [scene.ranked(side, 10)[:1] for side in ('before', 'after')]
    before, after = (user_metrics(runs, scene.data, 'test', (10,))[0]['ndcg@10'] for runs in lists)
    gain, counts = after - before, scene.data.train.getnnz(1)
    people = six_people(scene)
    rows = [row for row, _ in people]
    assert len(rows) == len(set(rows)) == 6
    assert sorted(gain[rows[:2]]) == sorted(gain.nlargest(2)) and sorted(gain[rows[2:4]]) == sorted(gain.nsmallest(2))
    rest = [row for row in gain.index if row not in rows]
    assert max(counts[rows[4:]]) <= min(counts[rest])


def test_a_page_of_findings_is_small_and_says_the_numbers(scene):
    sides = [ranked(runs, scene.data) for runs in (scene.before, scene.after)]
    table, groups = compare(*sides, scene.data), by_sparsity(*sides, scene.data)
    page = comparison_html(table) + helped_html(groups) + six_html(scene)
    assert f'{table.loc["ndcg@20"].ours:.4f}' in page and len(page) < 200_000
    assert page.count('pm-star') >= 1 and page.count('class="pm-card"') == 6
    assert not foreign(page)


def test_hostile_texts_are_escaped_in_people():
    hostile = hostile_scene()
    pages = [person_html(hostile, row, texts={}) for row in range(0, 60, 4)] + [six_html(hostile)]
    for page in pages:
        assert not foreign(page) and '\u202e' not in page and len(page) < 400_000
    assert foreign('<script>x</script><b onclick="y">') == ['script', 'b onclick'], 'the check sees what is bad'
    json.dumps(packed_people(hostile), allow_nan=False).encode()


def test_hostile_texts_are_escaped_in_findings():
    bad = list(TEXTS.values())
    rows = [dict(label=text, middle=1.0, low=0.5, high=2.0, decided=False, said=text, more=(text,)) for text in bad]
    checks = pd.DataFrame({'check': bad, 'passed': False, 'count': 1, 'detail': bad[::-1]})
    curves = {text: [(1, 0.1), (2, 0.2)] for text in bad}
    pieces = [
        forest_html(rows, (bad[0], bad[1]), note=bad[2]),
        curves_html(curves, {bad[0]: (2, 0.2)}, bad[3], bad[4]),
        audit_html(checks),
        headline_html(bad[5], bad),
        protocol_html({'settings': dict(zip(bad, bad, strict=True))}, {'a.json': '\n'.join(bad)}),
        download_link(bad[0], bad[1], bad[2]),
    ]
    assert [foreign(piece) for piece in pieces] == [[]] * len(pieces)


def test_a_forest_draws_what_it_says():
    unknown = dict(label='b', middle=math.nan, low=math.nan, high=math.nan)
    rows = [dict(label='a', middle=10.0, low=0.0, high=20.0), unknown]
    drawn = forest_html(rows)
    bar = re.search(r'pm-bar" style="left:([\d.]+)%;width:([\d.]+)%', drawn)
    dot = re.search(r'pm-dot" style="left:([\d.]+)%', drawn)
    assert float(dot[1]) == pytest.approx(float(bar[1]) + float(bar[2]) / 2, abs=0.02) and drawn.count('pm-bar') == 1


def test_claims_of_data_without_attributes_say_so():
    plain = small_scene()
    assert 'No claim that can be checked' in claims_html(plain, [])
    assert person_html(plain, 3).count('</li>') >= 20


def test_other_recommenders_stand_behind_the_two(scene):
    """Every list is that of its own scores, ranks on all of them are told, neighbours are joined by lines."""
    from promax_nb.models.closed import popularity

    liked = popularity(scene.data.train)
    more = dataclasses.replace(scene, others={'popularity': liked, '<b>odd</b>': scene.after[0]})
    lists = lists_of(more, 5, 10)
    assert list(lists) == ['before', 'after', 'popularity', '<b>odd</b>']
    row = np.asarray(liked.array([5])[0], float)
    row[(scene.data.train + scene.data.valid)[[5]].indices] = -np.inf
    assert [slot.item for slot in lists['popularity']] == np.argsort(-row, kind='stable')[:10].tolist()
    assert [slot.item for slot in lists['<b>odd</b>']] == [slot.item for slot in lists['after']]
    by_popularity = {item: place for place, item in enumerate(np.argsort(-row, kind='stable').tolist(), 1)}
    for slot in lists['after']:
        same = row == row[slot.item]
        assert 0 <= by_popularity[slot.item] - slot.ranks['popularity'] < same.sum()
    html = slopes_html(more, lists)
    assert html.count('pm-list"') == 4 and html.count('<svg') == 3 and '<b>odd</b>' not in html
    assert f'{sum(slot.hit for slot in lists["popularity"])} popularity' in html and not foreign(html)
    with pytest.raises(ValueError, match='another name'):
        dataclasses.replace(scene, others={'after': liked})


def test_what_was_lost_is_told_with_its_place_by_the_profile(scene):
    """A held-out item that left the list: its ranks, and the rank that the profile alone would give it."""
    told = 0
    for user in range(scene.data.n_users):
        lists = lists_of(scene, user)
        gone = [slot for slot in lists['before'] if slot.hit and slot.ranks['after'] > 10]
        html = fallen_html(scene, user, lists)
        if not gone:
            assert html is None
            continue
        told += 1
        su, si = (unit_rows(table) for table in scene.vectors)
        close = si @ su[user]
        close[(scene.data.train + scene.data.valid)[[user]].indices] = -np.inf
        for slot in gone:
            place = np.argsort(-close, kind='stable').tolist().index(slot.item) + 1
            assert f' fell from {slot.rank:,} to {slot.ranks["after"]:,}; by the profile alone it is {place:,}' in html
        assert html in person_html(scene, user)
    assert told > 3


def test_who_must_be_in_a_page_is_in_it(scene):
    people = packed_people(scene, most=10, first=[3, 4])
    assert {'3', '4'} <= set(people['rows']) and 10 <= people['users'] <= 12
    assert {str(row) for row in won_and_lost(scene, 5)} <= set(packed_people(scene, 10, won_and_lost(scene, 5))['rows'])
    gains = gains_of_users(scene)
    gain = gains['recall@20 after'] - gains['recall@20 before']
    assert gain.idxmin() in won_and_lost(scene, 5) and len(won_and_lost(scene, 5)) == 10


def test_places_are_those_of_the_ranking(scene):
    """Of what is listed or held out, counted anew from the scores; what does not compete has none."""
    for user in range(0, 120, 17):
        scores = person_scores(scene, user)
        lists = lists_of(scene, user)
        places = places_of(scene, user, lists, scores)
        wanted = set(scene.data.test[[user]].indices.tolist())
        assert set(places) == wanted | {slot.item for slots in lists.values() for slot in slots}
        for item, ranks in places.items():
            for row, rank in zip(scores.values(), ranks, strict=True):
                assert np.argsort(-row, kind='stable').tolist().index(item) + 1 == rank
        assert not set(places) & set(scene.data.train[[user]].indices.tolist())
    people = packed_people(scene, most=10)
    user = next(iter(people['rows']))
    lists = lists_of(scene, int(user))
    first = lists['after'][0]
    assert people['sides'] == ['before', 'after']
    assert people['places'][user][str(first.item)] == [first.ranks['before'], 1]
    json.dumps(people, allow_nan=False)
