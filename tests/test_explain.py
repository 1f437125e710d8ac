"""Reasons: what adds up to a score, what only goes along with it, what an item falls by without its first reason."""

import dataclasses
import itertools
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from browser.hostile import hostile_scene

from promax_nb.cli import main
from promax_nb.data.bookshop import toy_data
from promax_nb.data.words import content_words
from promax_nb.methods import LINES
from promax_nb.models.bases import GCCF, MF, LightGCN, SimGCL
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.results import load_fit
from promax_nb.models.scorers import Scorer, as_scorer
from promax_nb.models.train import fit
from promax_nb.recommend.build import recommender, recommender_of
from promax_nb.recommend.explain import explain_for, words_met
from promax_nb.recommend.folder import load_recommender
from promax_nb.recommend.layers import layers_of, propagate, walked
from promax_nb.recommend.reasons import Somebody, from_history, from_people, place_of, scores_without
from promax_nb.recommend.runs import open_recommender
from promax_nb.views.browser import ProfileBrowser
from promax_nb.views.person import lists_of, slopes_html
from promax_nb.views.reasons import explanation_html, reasons_for, scene_recommender
from promax_nb.views.scene import Scene

BASES = {
    'LightGCN': LightGCN,
    'some layers': lambda data, **how: LightGCN(data, sum_layers=(1, 3), cold='layer0', **how),
    'SimGCL': SimGCL,
    'GCCF': GCCF,
}


@pytest.fixture(scope='module')
def shop():
    return toy_data(120, 80, seed=2)


@pytest.fixture(scope='module')
def places(shop):
    """Profile vectors: the true tastes would do; here random ones with two holes."""
    rng = np.random.default_rng(0)
    users, items = (rng.normal(size=(n, 8)).astype(np.float32) for n in shop.shape)
    users[5], items[7] = 0, 0
    return users, items


@pytest.fixture(scope='module')
def added(shop):
    extra = sp.lil_matrix(shop.shape, dtype=np.float32)
    rng = np.random.default_rng(1)
    for user in range(0, shop.n_users, 3):
        new = np.setdiff1d(np.arange(shop.n_items), shop.events.item[shop.events.user == user])
        extra[user, rng.choice(new, 2, replace=False)] = 1
    return extra.tocsr()


def trained(shop, objective, base=LightGCN, epochs=15, **how):
    return fit(base(shop, dim=16, seed=0), objective, shop, epochs=epochs, batch=256, lr=1e-2, progress=False, **how)


@pytest.fixture(scope='module')
def base(shop):
    return trained(shop, BPR())


@pytest.fixture(scope='module')
def ours(shop, places, added):
    with pytest.warns(UserWarning, match='without a profile'):
        objective = ProMax(*places, added, sdr=0.5, s2dr=0.01, teacher_tau=0.1)
    return trained(shop, objective)


@pytest.fixture(scope='module')
def served(shop, base, ours, places, added):
    texts = [f'Enjoys {shop.items.text[row % shop.n_items][:60]} and more' for row in range(shop.n_users)]
    return recommender(shop, ours, base=base, profiles=(texts, [''] * shop.n_items), vectors=places, added=added)


def pairs(served, n, seed=0, top=5):
    """(user row, item row) of items near the top of lists."""
    rng = np.random.default_rng(seed)
    users = rng.choice(served.shape[0], n, replace=False)
    lists = served.ranked(users, top)[0]
    return [(int(user), int(items[rng.integers(top)])) for user, items in zip(users, lists, strict=True)]


# ---- the sum


@pytest.mark.parametrize('name', BASES)
def test_parts_add_up_to_the_score(shop, name):
    served = recommender(shop, trained(shop, BPR(), BASES[name], epochs=2))
    for user, item in pairs(served, 20):
        who = served.somebody(shop.users.user[user])
        score = served.ours.array([user])[0, item]
        for found in (from_history(served, who, item), from_people(served, who, item)):
            assert found.how == 'sum'
            assert abs(found.values.sum() + found.rest - score) < 1e-5
        history = from_history(served, who, item)
        assert sorted(history.rows) == shop.train[[user]].indices.tolist()
        assert sorted(from_people(served, who, item).rows) == sorted(shop.train[:, [item]].nonzero()[0])


@pytest.mark.parametrize('loops, joined', [(False, False), (True, True)])
def test_a_part_is_all_walks_that_leave_for_the_last_time_through_a_neighbour(loops, joined):
    """Against every walk there is, one by one, on a small graph."""
    rng = np.random.default_rng(3)
    train = sp.csr_matrix((rng.random((4, 5)) < 0.5).astype(np.float32))
    table = rng.normal(size=(9, 2)).astype(np.float32)
    facts = {'summed': [0, 1, 2, 3], 'joined': joined, 'self_loops': loops, 'alone': False}
    nodes = propagate({'nodes': table, **facts}, train)
    graph, target = nodes.adjacency.toarray().astype(np.float64), rng.normal(size=8 if joined else 2)
    for node in range(9):
        expected, own = np.zeros(9), 0.0
        for length in range(4):
            meant = target[2 * length : 2 * length + 2] if joined else target
            for steps in itertools.product(range(9), repeat=length):
                walk = (node, *steps)
                weight = np.prod([graph[here, there] for here, there in itertools.pairwise(walk)])
                worth = weight * (table[walk[-1]] @ meant)
                last = max(place for place, here in enumerate(walk) if here == node)
                if last == length:
                    own += worth
                else:
                    expected[walk[last + 1]] += worth
        edges, parts, mine = walked(nodes, node, target)
        assert mine == pytest.approx(own, abs=1e-6) and np.allclose(parts, expected[edges], atol=1e-6)
        assert not np.delete(expected, edges).any()


def test_a_closed_form_is_a_sum_too(shop, tmp_path):
    class Ease:
        shape = shop.shape

        def __init__(self):
            gram = (shop.train.T @ shop.train).toarray() + 50 * np.eye(shop.n_items)
            inverse = np.linalg.inv(gram)
            self.weights = -inverse / np.diag(inverse)
            np.fill_diagonal(self.weights, 0)

        def scores(self, rows):
            return shop.train[rows] @ self.weights

    ease = Ease()
    served = recommender(shop, ease)
    back = load_recommender(served.save(tmp_path / 'ship'))
    for user, item in pairs(served, 10):
        ids = shop.users.user[user], shop.items.item[item]
        why = served.explain(*ids)
        assert why.exact and why.how['people'] == 'counts'
        assert abs(why.parts['history'].value.sum() - ease.scores([user])[0, item]) < 1e-5
        assert repr(back.explain(*ids)) == repr(why)
        first = served.item_ids.rows(why.parts['history'].id[0])[1][0]
        kept = shop.train[[user]].toarray()
        kept[0, first] = 0
        assert np.allclose(scores_without(served, served.somebody(ids[0]), first), kept @ ease.weights, atol=1e-6)
    arrays = recommender_of(ease, shop.users.user, shop.items.item, known=shop.train)
    assert arrays.explain(*ids).exact
    ease.weights = ease.weights + 0.01  # they are no longer what the scores of a stored table come from
    stored = Scorer(lambda rows: served.ours.array(rows) * 2, shop.shape)
    assert not recommender(shop, stored).explain(*ids).exact


def test_parts_of_both_signs_that_cancel_are_still_parts(shop):
    """A score near zero is as exact as any: what counts is the size of its parts."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(shop.n_items, shop.n_items)).astype(np.float32) * 100
    row = shop.train[[0]].indices
    weights[row[0], 3] -= weights[row, 3].sum()  # user 0 and item 3: nothing is left
    ranks = type('Weighted', (), {'weights': weights, 'scores': lambda self, rows: shop.train[rows] @ weights})()
    why = recommender(shop, ranks).explain(shop.users.user[0], shop.items.item[3])
    assert why.exact and abs(why.standings['after'].score) < 1e-3 and why.parts['history'].value.abs().max() > 10


# ---- the test that a reason has to pass


def falls(served, user, item):
    """Fall of an item's score and rank without each item of the history, and the place of the named first."""
    who = served.somebody(served.users.user[user])
    shown = np.ones(served.shape[1], bool)
    shown[who.known] = False
    found = from_history(served, who, item)
    score, rank = who.scores['ours'][item], place_of(item, who.scores['ours'], shown)
    spread = who.scores['ours'][shown].std()
    lost, ranks = [], []
    for row in found.rows:
        there = scores_without(served, who, int(row))
        relative = (score - who.scores['ours'][shown].mean()) / spread
        lost.append(relative - (there[item] - there[shown].mean()) / there[shown].std())
        ranks.append(place_of(item, there, shown) - rank)
    return np.array(lost), np.array(ranks)


def test_without_the_named_item_it_falls_further_than_without_another(served):
    """In standard deviations of the user's scores and in ranks: on average, and for nearly all."""
    scores, ranks = [], []
    for user, item in pairs(served, 60, top=10):
        lost, fallen = falls(served, user, item)
        if len(lost) > 1:
            scores.append(lost[0] - lost[1:].mean())  # the mean over all others is what a random one costs
            ranks.append(fallen[0] - fallen[1:].mean())
    scores, ranks = np.array(scores), np.array(ranks)
    half = 1.96 * scores.std(ddof=1) / np.sqrt(len(scores))
    print(f'{len(scores)}: {scores.mean():.3f} +- {half:.3f}, {np.mean(scores > 0):.0%}; ranks {ranks.mean():.2f}')
    assert scores.mean() - half > 0 and np.mean(scores > 0) > 0.95
    assert ranks.mean() - 1.96 * ranks.std(ddof=1) / np.sqrt(len(ranks)) > 0 and np.mean(ranks >= 0) > 0.85


def test_without_is_a_graph_without_that_edge(shop, ours, served):
    """The rank without an item, against the model itself on the other graph."""
    import torch

    user, item = pairs(served, 1, seed=4)[0]
    why = served.explain(shop.users.user[user], shop.items.item[item], without=2)
    assert why.parts['history'].rank_without.notna().sum() == 2
    gone = served.item_ids.rows(why.parts['history'].id[1])[1][0]
    edges = shop.train.tolil(copy=True)
    edges[user, gone] = 0
    with torch.no_grad():
        users, items = ours.model.eval()(ours.model.graph(edges.tocsr()))
    scores = (users[user] @ items.T).numpy().astype(float)
    scores[shop.events.item[shop.events.user == user]] = -np.inf
    assert why.parts['history'].rank_without[1] == 1 + (scores > scores[item]).sum()
    assert shop.train[user, gone] == 1  # nothing was changed on the way


# ---- where it stands


def test_standings_are_those_of_lists_and_of_the_teacher(shop, served, ours, places):
    import torch

    from promax_nb.models.objectives import Teacher

    user, item = pairs(served, 1, seed=3)[0]
    ids = shop.users.user[user], shop.items.item[item]
    why = served.explain(*ids)
    for side, name in (('ours', 'after'), ('base', 'before')):
        ranks = served.recommend(ids[0], n=shop.n_items, side=side).set_index('item')['rank']
        assert why.standings[name].rank == ranks[ids[1]] and why.among == len(ranks)
    candidates = np.setdiff1d(np.arange(shop.n_items), shop.events.item[shop.events.user == user])
    everything = Teacher(*places, tau=0.1).probabilities(torch.nn.functional.normalize(torch.tensor(places[0][[user]])))
    among = everything[0, candidates] / everything[0, candidates].sum()
    place = candidates.tolist().index(item)
    assert (why.tau['model'], why.tau['profile']) == (0.2, 0.1) and why.standings['recommended'] is None
    assert why.standings['profile'].probability == pytest.approx(float(among[place]), rel=1e-4)
    assert why.standings['profile'].rank == 1 + int((among > among[place]).sum())
    student = torch.nn.functional.cosine_similarity(torch.tensor(ours.users[[user]]), torch.tensor(ours.items)) / 0.2
    assert why.standings['after'].probability == pytest.approx(float(student[candidates].softmax(0)[place]), rel=1e-4)


def test_without_a_profile_nothing_is_said_of_one(shop, served):
    assert served.explain(shop.users.user[5], shop.items.item[3]).standings['profile'] is None
    blank = served.explain(shop.users.user[6], shop.items.item[7]).standings['profile']
    assert blank.rank is None and blank.probability == 0
    assert 'by profile' not in repr(served.explain(shop.users.user[6], shop.items.item[7]))


def test_what_may_be_shown_is_counted(shop, served):
    user, item = pairs(served, 1)[0]
    ids = shop.users.user[user], shop.items.item[item]
    few = [*shop.items.item[:10], ids[1]]
    why = served.explain(*ids, allow=few)
    listed = served.recommend(ids[0], n=99, allow=few)
    assert why.among == len(listed) and why.standings['after'].rank == listed.item.tolist().index(ids[1]) + 1


# ---- words, events, ids


def test_words_of_the_profile_that_stand_in_the_item(shop, served):
    user, item = 4, 4  # the profile quotes this item's text
    why = served.explain(shop.users.user[user], shop.items.item[item])
    quoted = content_words(shop.items.text[item][:60])
    assert set(why.words) <= content_words(served.profiles[0][user]) and len(set(why.words) & quoted) >= 3
    assert not set(why.words) & {'and', 'the', 'more', 'enjoys'}
    order = [served.profiles[0][user].casefold().index(word) for word in why.words]
    assert order == sorted(order)


def test_added_and_known_events_are_told(shop, served, added):
    user = 3
    new = added[[user]].indices[0]
    why = served.explain(shop.users.user[user], shop.items.item[new])
    assert why.added and why.event == '' and 'retrieval suggested it' in repr(why)
    mine = shop.events[shop.events.user == user].item
    held_out = next(row for row in mine if not shop.train[user, row])
    for row, event in ((shop.train[[user]].indices[0], 'train'), (held_out, 'known')):
        why = served.explain(shop.users.user[user], shop.items.item[row])
        assert why.event == event and not why.added and 'no list shows it' in repr(why)
        assert why.standings['after'].rank >= 1  # it takes part, or nothing could be said of it


@pytest.mark.parametrize(
    'user, item, sentence',
    [
        ('r99999', None, 'no user is called'),
        (None, 'nothing', 'no item is called'),
        (['r0001', 'r0002'], None, '2 user ids'),
        (None, [], '0 item ids'),
    ],
)
def test_what_cannot_be_explained_is_told(served, user, item, sentence):
    ids = served.users.user[1] if user is None else user, served.items.item[1] if item is None else item
    with pytest.raises(ValueError, match=sentence) as told:
        served.explain(*ids)
    assert 'unknown=' not in str(told.value)  # no such argument is here


# ---- each kind in its own words


def test_what_is_no_sum_is_not_called_one(shop):
    factors = trained(shop, BPR(), MF, epochs=2)
    scores = factors.users @ factors.items.T
    for ranks, how in ((factors, 'vectors'), ((factors.users, factors.items), 'vectors'), (scores, 'counts')):
        why = recommender(shop, ranks).explain(shop.users.user[0], shop.items.item[0])
        assert why.how == {'history': how, 'people': how} and not why.exact
        assert repr(why).count('goes along with') == 2 and 'carried by' not in repr(why)
        assert why.parts['history'].rank_without.isna().all() and why.rest == {'history': 0, 'people': 0}
        assert 'rest of history' not in why.frame().part.tolist()
        assert why.frame().share.between(-1, 1).all()


def test_counts_are_what_a_plain_loop_finds(shop):
    user, item = 2, 9
    why = recommender(shop, np.zeros(shop.shape)).explain(shop.users.user[user], shop.items.item[item])
    readers = [set(shop.train[:, [row]].nonzero()[0]) for row in range(shop.n_items)]
    for row in why.parts['history'].itertuples():
        other = shop.items.item.tolist().index(row.id)
        size = np.sqrt(len(readers[other]) * len(readers[item]))
        assert row.value == pytest.approx(len(readers[other] & readers[item]) / size)


def test_a_base_of_ones_own_that_does_something_else_is_found_out(shop):
    class Doubled(LightGCN):
        def forward(self, adj=None):
            users, items = super().forward(adj)
            return users * 2, items

    why = recommender(shop, trained(shop, BPR(), Doubled, epochs=1)).explain(shop.users.user[0], shop.items.item[0])
    assert not why.exact

    class Starts(LightGCN):
        def start(self):
            return 1.5 * super().start()

    run = trained(shop, BPR(), Starts, epochs=1)
    assert layers_of(run, as_scorer(run), shop.train) == {}


# ---- guests


def test_somebody_who_is_in_no_table_gets_reasons_too(shop, served, ours):
    history = np.array([3, 11, 20])
    gifts = ours.items[history] / 3
    guest = Somebody(
        'a guest',
        {'ours': (gifts.sum(0) @ ours.items.T).astype(float)},
        history,
        {'ours': gifts.sum(0)},
        {'ours': gifts @ ours.items.T},
        profile='likes harbour stories',
        place=served.vectors[0][0],
    )
    why = explain_for(served, guest, 30)
    assert why.user == 'a guest' and why.exact and why.how['people'] == 'sum' and why.added is None
    assert why.among == shop.n_items - 3 and why.standings['before'] is None and why.standings['profile'].rank
    assert why.parts['history'].value.sum() == pytest.approx(guest.scores['ours'][30], abs=1e-5)
    first = served.item_ids.rows(why.parts['history'].id[0])[1][0]
    kept = gifts[history != first].sum(0) @ ours.items.T
    candidates = np.setdiff1d(np.arange(shop.n_items), history)
    assert why.parts['history'].rank_without[0] == 1 + (kept[candidates] > kept[30]).sum()
    guest.parts = {}
    along = explain_for(served, guest, 30)
    assert along.how['history'] == 'vectors' and along.how['people'] == 'sum'
    bare = Somebody('nobody', {'ours': np.zeros(shop.n_items)}, np.array([], int))
    nothing = explain_for(served, bare, 3)
    assert 'nothing' in repr(nothing) and nothing.words == []


# ---- kept and shown


def test_after_a_save_the_reasons_are_the_same(served, ours, base, shop, tmp_path):
    back = load_recommender(served.save(tmp_path / 'ship'))
    user, item = pairs(served, 1)[0]
    ids = shop.users.user[user], shop.items.item[item]
    why, again = served.explain(*ids), back.explain(*ids)
    assert repr(why) == repr(again) and why.frame().equals(again.frame())
    read = load_fit(ours.save(tmp_path / 'fit'))
    from_files = recommender(shop, read).explain(*ids)
    assert from_files.exact and from_files.frame().equals(recommender(shop, ours).explain(*ids).frame())
    (tmp_path / 'fit' / 'model.safetensors').unlink()
    assert not recommender(shop, load_fit(tmp_path / 'fit')).explain(*ids).exact


def test_reasons_need_no_training_code(served, shop, tmp_path):
    folder = served.save(tmp_path / 'ship')
    code = (
        f'import sys\nfrom promax_nb.recommend.folder import load_recommender\n'
        f'why = load_recommender({str(folder)!r}).explain({shop.users.user[1]!r}, {shop.items.item[2]!r})\n'
        f"print(why.exact, [name for name in ('torch', 'promax_nb.models.train') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ['True', '[]']


def test_an_explanation_is_plain_values(served, shop):
    why = served.explain(shop.users.user[1], shop.items.item[2])
    facts = json.loads(json.dumps(why.as_dict(), allow_nan=False))
    assert facts['user'] == shop.users.user[1] and facts['standings']['after']['rank'] >= 1
    assert [row['id'] for row in facts['history']] == why.parts['history'].id.tolist()
    frame = why.frame()
    assert set(frame.part) == {'history', 'rest of history', 'people', 'rest of people'}
    assert set(frame.id[frame.part == 'people']) <= set(shop.users.user)


def test_hostile_titles_stay_on_their_line():
    numbers = np.eye(4, dtype=np.float32)
    items = pd.DataFrame({'item': list('abcd'), 'title': ['x\u202ey', 'line\nbreak', '<b>', '"'], 'text': ''})
    served = recommender_of((numbers, numbers), ['u\u200b1', 'u2', 'u3', 'u4'], items, known=sp.eye(4))
    text = repr(served.explain('u\u200b1', 'a'))
    assert '\u202e' not in text and '\u200b' not in text and '⟨U+202E⟩' in text
    assert len(repr(served.explain('u2', 'b')).split('\n')) == len(text.split('\n'))


# ---- on the command line


def test_the_command_says_what_the_library_says(odd_run, capsys):
    folder = odd_run[0]
    served = open_recommender(folder)
    user, item = (served.recommend(served.users.user[3], n=1).iloc[0][name] for name in ('user', 'item'))
    asked = ['explain', str(folder), '--user', user, '--item', item]
    assert main(asked) == 0
    why = served.explain(user, item)
    assert capsys.readouterr().out.rstrip() == repr(why) and why.standings['before'].rank
    facts = json.loads((folder / 'metrics.json').read_text(encoding='utf-8'))
    line = facts['methods'][facts['recommended']['method']]['line']
    assert why.standings['recommended'].rank == 1
    assert why.exact == (line.partition(' + ')[0] in LINES), 'a closed form with texts is a sum, a training is none'
    assert main([*asked, '--json', '--without', '0']) == 0
    line = capsys.readouterr().out
    assert json.loads(line) == json.loads(json.dumps(served.explain(user, item, without=0).as_dict()))
    assert line.isascii() and line.count('\n') == 1


@pytest.mark.parametrize(
    'user, item, told',
    [
        ('nobody at all', None, 'no user is called'),
        (None, 'nothing', 'no item is called'),
        ('', None, 'no user'),
    ],
)
def test_the_command_refuses_in_one_sentence(odd_run, capsys, user, item, told):
    served = open_recommender(odd_run[0])
    ids = served.users.user[3] if user is None else user, served.items.item[3] if item is None else item
    assert main(['explain', str(odd_run[0]), '--user', ids[0], '--item', ids[1]]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count('\n') == 1 and 'unknown=' not in said


# ---- to look at


@pytest.fixture(scope='module')
def scene(shop, base, ours, served, places, added):
    users = pd.DataFrame({'profile': served.profiles[0]})
    return Scene(shop, users, None, places, [base], [ours], added, settings={'teacher_tau': 0.1})


def test_a_scene_says_what_the_recommender_says(scene, served, shop):
    user, item = pairs(served, 1)[0]
    ids = shop.users.user[user], shop.items.item[item]
    there = scene_recommender(scene)
    assert there is scene_recommender(scene)
    assert there.explain(*ids).exact and repr(there.explain(*ids)) == repr(served.explain(*ids))


def test_a_scene_that_was_changed_is_explained_by_what_it_holds(scene, ours, base):
    kept = dataclasses.replace(scene, vectors=scene.vectors)  # as an edit does
    assert scene_recommender(kept).layers.keys() == {'ours', 'base'}
    other = dataclasses.replace(scene, after=[(base.users, base.items)])  # not what its training says any more
    assert scene_recommender(other).layers.keys() == {'base'}
    assert scene_recommender(Scene(scene.data, before=[base])).base is None
    assert scene_recommender(Scene(scene.data)) is None


def test_reasons_for_a_page_are_those_of_the_library(scene, served, shop):
    for row in range(0, 60, 9):
        user = shop.users.user[row]
        rows = [served.item_ids.row(item) for item in served.recommend(user, n=4).item]
        reasons = reasons_for(scene_recommender(scene), row, rows)
        assert [reason['item'] for reason in reasons] == rows
        for reason in reasons:
            why = served.explain(user, shop.items.item[reason['item']])
            table = why.parts['history']
            assert reason['words'] == why.words[:3] and reason['how'] == 'carried by'
            if reason['first'] is not None:
                assert shop.items.item[reason['first']] == table.id[0] and reason['share'] == table.share[0]
            else:
                assert not len(table) or table.value[0] <= 0


def test_the_lists_of_the_browser_say_why(scene, served, shop):
    """The lists are those of the test, with held-out items starred; the reasons are those of the library."""
    seen, lists = ProfileBrowser(scene), lists_of(scene, 3)
    seen.show('user', 3)
    for name in ('before', 'after'):
        rows = [row for _, (_, row) in seen.listed[name].options]
        assert rows == [slot.item for slot in lists[name]]
        assert [slot.hit for slot in lists[name]] == ['★' in label for label, _ in seen.listed[name].options]
    assert slopes_html(scene, lists) in seen.shown.note.value
    seen.listed['after'].index = 1
    why = served.explain(shop.users.user[3], shop.items.item[seen.shown.item])
    assert seen.shown.item == seen.listed['after'].value[1] and seen.error is None
    assert explanation_html(why) in seen.why.value and seen.why.value in seen.still()
    seen.shown.open.click()
    assert seen.picked == ('item', rows[1]) and seen.why.value == ''
    seen.shown.open.click()
    assert 'no item is chosen' in str(seen.error)


def test_hostile_texts_are_escaped_in_reasons():
    rows = [row for row in range(60)]
    hostile = hostile_scene()
    there = scene_recommender(hostile)
    for row in rows[::3]:
        item = int(there.ranked([row], 1)[0][0, 0])
        why = there.explain(there.user_ids[row], there.item_ids[item])
        page = explanation_html(why)
        foreign = re.findall(r'<(?!/?(?:div|p|b|span|table|caption|thead|tbody|tr|th|td)[ >])', page)
        assert len(page) < 30_000 and not foreign
        assert '\u202e' not in page and '\u202e' not in repr(why)
    seen = ProfileBrowser(hostile)
    seen.listed['after'].index = 0
    assert seen.error is None and seen.why.value


def test_what_a_profile_avoids_is_no_reason():
    told = 'Enjoys slow mystery; keeps away from brisk romance.'
    assert words_met(told, 'A brisk, slow mystery.') == ['slow', 'mystery']
    assert words_met('Enjoys mystery. Avoids mystery at sea.', 'A mystery.') == []
