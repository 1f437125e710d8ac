"""Closed forms, reshaping at score level, the gate, and what validation recommends."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from promax_nb.data.bookshop import toy_data
from promax_nb.methods import (
    Method,
    cheap_lines,
    clicks_method,
    lists_of_methods,
    method_entries,
    recommended,
    text_method,
)
from promax_nb.models.closed import ease, item_knn, popularity
from promax_nb.models.distributions import standardised
from promax_nb.models.evaluate import evaluate, per_user
from promax_nb.models.gate import TextGate, choose_width, gate, guide_choice, spaces_of, text_faults, text_guides
from promax_nb.models.reshape import (
    choose_alphas,
    choose_slopes,
    history_guide,
    knows,
    profile_guide,
    reader_facts,
    reshape,
)
from promax_nb.models.scorers import as_scorer, top_items
from promax_nb.recommend.build import recommender
from promax_nb.recommend.folder import load_recommender
from promax_nb.recommend.guided import guided_parts


@pytest.fixture(scope='module')
def shop():
    return toy_data(160, 90, seed=2)


@pytest.fixture(scope='module')
def truth(shop):
    """Vectors that know every taste."""
    told = shop.extras['truth']
    return told['user_weights'], told['item_attributes'].astype(np.float32)


# closed forms --------------------------------------------------------------------------------------------------------


def test_ease_is_the_inverse_of_the_paper(shop):
    X = (shop.train.toarray() > 0).astype(float)
    P = np.linalg.inv(X.T @ X + 30 * np.eye(90))
    B = np.eye(90) - P / np.diag(P)
    np.testing.assert_allclose(ease(shop.train, reg=30).weights, B * (1 - np.eye(90)), atol=1e-5)


def test_side_information_is_more_people(shop, truth):
    """The Gram matrix with texts is that of the clicks with the columns of the texts as further rows."""
    side = truth[1] / np.linalg.norm(truth[1], axis=1, keepdims=True)
    X = np.vstack([shop.train.toarray() > 0, np.sqrt(3.0) * side.T])
    P = np.linalg.inv(X.T @ X + 30 * np.eye(90))
    B = (np.eye(90) - P / np.diag(P)) * (1 - np.eye(90))
    np.testing.assert_allclose(ease(shop.train, 30, side, 3.0).weights, B, atol=1e-5)


def test_closed_forms_refuse_in_a_sentence(shop):
    for call, word in (
        (lambda: ease(shop.train, memory=1e-5), 'use item_knn'),
        (lambda: ease(shop.train, reg=0), 'positive'),
        (lambda: ease(shop.train, side=np.ones((3, 2))), 'one vector per item'),
        (lambda: item_knn(shop.train, k=0), '1 neighbour'),
    ):
        with pytest.raises(ValueError, match=word):
            call()


def test_item_without_a_person_has_no_neighbour():
    train = sp.csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 1, 0]]))
    weights = item_knn(train, k=3, shrink=0).weights.toarray()
    assert not weights[3].any() and not weights[:, 3].any() and not np.diag(weights).any()
    assert weights[0, 1] == pytest.approx(1) and weights[0, 2] == pytest.approx(2**-0.5)
    assert np.isfinite(item_knn(train * 0, k=2, shrink=0).weights.toarray()).all()


def test_a_closed_form_is_explained_to_the_last_digit(shop):
    """The score is the sum of the weights of the history, and the room of reasons finds them."""
    served = recommender(shop, ease(shop.train, reg=30))
    why = served.explain(shop.users.user[4], served.recommend(shop.users.user[4], n=1).item[0])
    assert 'weights' in served.layers['ours'] and why.sentences()


# reshaping -----------------------------------------------------------------------------------------------------------


def test_scale_by_plain_loops():
    import torch

    rng = np.random.default_rng(0)
    scores, shown = rng.normal(size=(5, 12)) * 9 + 4, rng.random((5, 12)) < 0.7
    scaled, mean, spread = standardised(torch.tensor(scores), torch.tensor(shown))
    for one, other in zip(standardised(scores, shown), (scaled, mean, spread), strict=True):
        np.testing.assert_allclose(one, other)
    for row in range(5):
        inside = scores[row][shown[row]]
        np.testing.assert_allclose(scaled[row], (scores[row] - inside.mean()) / inside.std())
        assert float(spread[row]) == pytest.approx(inside.std())
    nothing, _, none = standardised(torch.full((2, 6), 1e9), None)
    assert not nothing.any() and not none.any()


def test_a_row_of_minus_infinity_does_not_spread():
    import torch

    scaled, *_ = standardised(torch.tensor([[1.0, 2, 3, -torch.inf]]))
    assert torch.isfinite(scaled[0, :3]).all() and scaled[0, 3] == -torch.inf


def test_the_sum_is_the_product_of_distributions(shop, truth):
    import torch

    line, guide = ease(shop.train, reg=30), profile_guide(*truth)
    both = reshape(line, {'profile': guide}, {'profile': 0.7}, shop.train)
    parts, rows = both.pieces([3, 9]), [3, 9]
    q, p = torch.softmax(parts['recommender'], 1), torch.softmax(parts['profile'], 1)
    product = q * p**0.7
    expected = product / product.sum(1, keepdim=True)
    torch.testing.assert_close(torch.softmax(both.scores(rows), 1), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(sum(both.parts(rows).values()), both.scores(rows))


def test_items_without_a_text_stay_where_they_are(shop, truth):
    items = truth[1].copy()
    items[:30] = 0
    both = reshape(ease(shop.train, reg=30), {'p': profile_guide(truth[0], items)}, {'p': 2.0}, shop.train)
    parts = both.parts(np.arange(20))
    assert not parts['p'][:, :30].any() and parts['p'][:, 30:].any()


def test_someone_without_a_text_keeps_the_list(shop, truth):
    users = truth[0].copy()
    users[5] = 0
    line = ease(shop.train, reg=30)
    both = reshape(line, {'p': profile_guide(users, truth[1])}, {'p': 5.0}, shop.train)
    np.testing.assert_array_equal(top_items(both.scores([5]), 10)[0], top_items(as_scorer(line).scores([5]), 10)[0])


def test_one_weight_for_each_user(shop, truth):
    weights = np.zeros(160)
    weights[7] = 1.0
    line, guide = ease(shop.train, reg=30), {'p': profile_guide(*truth)}
    some, all_ = (reshape(line, guide, {'p': w}, shop.train).scores([6, 7]) for w in (weights, 1.0))
    none = reshape(line, guide, {'p': 0.0}, shop.train).scores([6, 7])
    assert (some[0] == none[0]).all() and (some[1] == all_[1]).all()


def test_reshape_refuses_in_a_sentence(shop, truth):
    line, guide = ease(shop.train), {'p': profile_guide(*truth)}
    for call, word in (
        (lambda: reshape(line, guide, {'q': 1.0}), 'give each guide its weight'),
        (lambda: reshape(line, guide, {'p': np.nan}), 'finite'),
        (lambda: reshape(line, guide, {'p': np.ones(3)}), 'one for each user'),
        (lambda: reshape(line, guide, {'p': 1.0}, form='x'), "'z' or 'raw'"),
        (lambda: reshape(line, [guide['p']], {'p': 1.0}), 'name each of them'),
        (lambda: reshape(line, {'p': profile_guide(truth[0][:9], truth[1])}, {'p': 1.0}), 'same users and items'),
        (lambda: choose_alphas(line, guide, shop.valid * 0, shop.train), 'hold some out'),
    ):
        with pytest.raises(ValueError, match=word):
            call()


def test_what_was_tried_is_what_is_served(shop, truth):
    line, guides = ease(shop.train, reg=30), {'p': profile_guide(*truth), 'h': history_guide(shop.train, truth[1])}
    found = choose_alphas(line, guides, shop.valid, shop.train)
    served = reshape(line, guides, found.alphas, shop.train, found.form)
    assert evaluate(served, shop.valid, shop.train)['ndcg@20'] == pytest.approx(found.value)
    assert found.value == found.tried['ndcg@20'].max() > evaluate(line, shop.valid, shop.train)['ndcg@20'] + 0.05
    weights, slopes, value = choose_slopes(
        line, guides, found, reader_facts(shop.train, guides['h'], truth[1]), shop.valid, shop.train
    )
    assert value >= found.value and set(slopes) == {'items', 'sharp', 'knows'} and weights['p'].shape == (160,)
    again = reshape(line, guides, weights, shop.train, found.form)
    assert evaluate(again, shop.valid, shop.train)['ndcg@20'] == pytest.approx(value)


def test_what_texts_know_of_ones_own_items():
    """An item is compared with the rest of the history, never with itself."""
    train = sp.csr_matrix(np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]]))
    texts = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    place = knows(train, texts, others=400, seed=1)
    assert place[0] > 0.7 and place[1] < 0.5 and np.isnan(place[2])


# the gate ------------------------------------------------------------------------------------------------------------


def test_the_gate_never_reads_test(shop, truth):
    line = ease(shop.train, reg=30)
    blind = SimpleNamespace(train=shop.train, valid=shop.valid)
    assert gate(shop, spaces_of(truth), line).sentence() == gate(blind, spaces_of(truth), line).sentence()


def test_the_gate_is_closed_for_noise(shop):
    """Twelve worlds of vectors that know nothing: what they add is seldom above zero, and never by much."""
    line = ease(shop.train, reg=30)
    opened = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        found = gate(shop, spaces_of((rng.normal(size=(160, 16)), rng.normal(size=(90, 16)))), line)
        opened += found.opens
    assert opened <= 2


def test_measured_by_the_other_half(shop, truth):
    """With one user in whom all the gain lies, the half that chose by that user is not measured by it."""
    line = ease(shop.train, reg=30)
    guides = text_guides(shop.train, {'truth': truth})
    found = guide_choice(line, guides, shop.train, shop.valid)
    best = found.tried.value.max()
    assert found.after.mean() <= best + 1e-12 and len(found.users) == (np.diff(shop.valid.indptr) > 0).sum()
    few = guide_choice(line, guides, shop.train, shop.valid, most=40)
    assert len(few.users) == 40 and (np.diff(few.users) > 0).all()


def test_faults_of_texts():
    rng = np.random.default_rng(0)
    fine = [f'text {n}' for n in range(300)]
    assert text_faults(fine, rng.normal(size=(300, 16)), 'items') == []
    alike = rng.normal(size=16) + rng.normal(size=(300, 16)) / 20
    assert 'nearly all the same' in text_faults(fine, alike, 'items')[0]
    assert 'word for word' in text_faults(fine[:200] + ['the same'] * 100, rng.normal(size=(300, 16)), 'items')[0]


# what to use ---------------------------------------------------------------------------------------------------------


def test_validation_recommends_and_test_decides_nothing(shop, truth):
    lines, told = cheap_lines(shop)
    methods = [*lines, text_method(lines[-1], {'truth': truth}, shop)]
    turned = SimpleNamespace(train=shop.train, valid=shop.valid, test=shop.test[::-1])
    assert not told and recommended(methods)['method'] == 'EASE + texts'
    here, there = (method_entries(methods, lists_of_methods(methods, data), data) for data in (shop, turned))
    assert all(here[name]['valid'] == there[name]['valid'] for name in here)
    assert any(here[name]['test'] != there[name]['test'] for name in here)
    assert len({tuple(entry) for entry in here.values()}) == 1


def test_a_training_takes_a_closed_form_where_it_helps(shop, truth):
    """Vectors of the half of all tastes, and item weights: each knows what the other does not."""
    lines = {line.name: line for line in cheap_lines(shop)[0]}
    users = np.flatnonzero(np.diff(shop.valid.indptr))
    half = [table * (np.arange(table.shape[1]) % 2 == 0) for table in truth]
    runs, noise = [tuple(half), tuple(half)], np.random.default_rng(0).normal(size=(160, 8))
    alone = Method('MF', runs, _valid_of(runs, shop, users))
    both = clicks_method(alone, lines['EASE'], shop)
    assert (both.name, both.by_chance, both.line, both.texts) == ('MF + EASE', True, '', [])
    assert both.valid.mean() > max(alone.valid.mean(), lines['EASE'].valid.mean())
    assert both.clicks[0]['alpha'] > 0 and both.clicks[0]['settings'] == lines['EASE'].settings
    more = text_method(both, {'truth': truth}, shop)
    assert (more.name, more.line, more.clicks) == ('MF + EASE + texts', 'MF + EASE', both.clicks)
    assert set(more.runs[0].guides) == {'EASE', more.texts[0]['guide']}
    none = clicks_method(lines['EASE'], Method('drawn', [(noise, noise[:90])], alone.valid), shop)
    assert none.valid.mean() <= lines['EASE'].valid.mean() * 1.05  # nothing is known, so nothing is gained


def _valid_of(runs, shop, users):
    tables = [per_user(run, shop.valid, shop.train, (20,))['ndcg@20'] for run in runs]
    return pd.concat(tables, axis=1).mean(axis=1).loc[users]


def test_alike_methods_are_named(shop):
    line = as_scorer(popularity(shop.train))
    values = pd.Series(np.random.default_rng(0).random(50))
    nearly = values[::-1].reset_index(drop=True) + 1e-6
    methods = [Method(name, [line], table) for name, table in (('a', values), ('b', nearly), ('c', values - 0.5))]
    told = recommended(methods)
    assert told['method'] == 'b' and told['why'].endswith('Not shown to be worse, over the users: a.')


def test_the_width_that_keeps_the_signal():
    """Ten directions hold all that is known of tastes, a hundred others are noise: whitened to 64 they drown it."""
    shop, rng = toy_data(240, 120, seed=5), np.random.default_rng(0)
    told = shop.extras['truth']
    users = told['user_weights'] @ told['item_attributes'].T.astype(float)
    left, values, right = np.linalg.svd(users, full_matrices=False)
    su, si = left[:, :8] * values[:8], right[:8].T * values[:8]
    noise = [rng.normal(size=(n, 100)) * 0.05 * table.std() for n, table in ((240, su), (120, si))]
    raw = tuple(np.hstack([table, extra]) for table, extra in zip((su, si), noise, strict=True))
    width, tried = choose_width(raw, shop.train, shop.valid)
    assert width == 8 and tried[8] > tried[64] + 0.05
    flat = choose_width((rng.normal(size=(240, 80)), rng.normal(size=(120, 80))), shop.train, shop.valid)
    assert flat[0] == 64 and set(flat[1]) == {8, 16, 32, 64}


# serving what is recommended -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('form', ['z', 'raw'])
@pytest.mark.parametrize('kind', ['closed', 'neighbours', 'trained', 'with EASE', 'with ItemKNN'])
def test_a_recommended_side_is_kept_and_taken_apart(shop, truth, tmp_path, kind, form):
    """Saved as arrays, read without a pickle, every score the sum of its parts."""
    from promax_nb.models.bases import LightGCN

    model = LightGCN(shop, dim=8, seed=1).eval()
    closed = {'EASE': ease(shop.train, 20.0), 'ItemKNN': item_knn(shop.train, 20)}
    line = {'closed': closed['EASE'], 'neighbours': closed['ItemKNN']}.get(kind, _Fit(model))
    guides = {'history': history_guide(shop.train, truth[1]), 'profile': profile_guide(*truth)}
    alphas = {'history': 0.6, 'profile': 0.3}
    if kind.startswith('with '):
        guides = {'clicks': closed[kind.removeprefix('with ')]} | guides
        alphas['clicks'] = 0.4
    both = reshape(line, guides, alphas, shop.train, form)
    recommender(shop, _Fit(model), recommended=both).save(tmp_path / 'R')
    served = load_recommender(tmp_path / 'R')
    first = served.recommend(shop.users.user[4], n=1)
    assert served.best_side == 'recommended'
    assert first.equals(served.recommend(shop.users.user[4], n=1, side='recommended'))
    item = int(served.item_ids.rows(first.item)[1][0])
    history, parts, rest = guided_parts(served, 4, item)
    assert set(history) == set(shop.train[[4]].indices)
    assert parts.sum() + rest == pytest.approx(first.score[0], abs=1e-4)
    straight = dataclasses.replace(both, known=served.known)
    np.testing.assert_allclose(served.recommended.array([4, 9]), straight.scores([4, 9]), atol=1e-4)
    why = served.explain(shop.users.user[4], first.item[0])
    assert why.exact and why.standings['recommended'].rank == 1 and why.standings['after'].rank >= 1
    assert why.parts['history'].rank_without.notna().sum() == 3
    if kind in ('closed', 'neighbours'):  # of somebody who names this history the same is known, but for the profile
        alike = served.guest(items=list(shop.items.item[history]), how='items').scores('recommended')
        without = reshape(line, guides | {'profile': guides['history']}, alphas, shop.train, form).scores([4])[0]
        np.testing.assert_allclose(alike - alike.mean(), without - without.mean(), atol=1e-3)
    guest = served.guest(items=list(shop.items.item[[3, 9]]), disliked=shop.items.item[5])
    best = guest.recommend(1, side='recommended').item[0]
    why = guest.explain(best, side='recommended')
    assert why.exact and why.standings['recommended'].rank == 1
    assert set(why.parts['history'].id) == set(shop.items.item[[3, 9]])
    alone = recommender(shop, _Fit(model)).guest(items=best)
    with pytest.raises(ValueError, match="no side 'recommended'"):
        alone.explain(shop.items.item[7], side='recommended')
    with pytest.raises(ValueError, match='needs items or a profile'):
        served.guest(vector=np.ones(8)).recommend(side='recommended')


class _Fit:
    """A fit, as far as serving looks at it."""

    def __init__(self, model):
        import torch

        self.model = model
        with torch.no_grad():
            self.users, self.items = (table.numpy() for table in model())


def test_without_an_item_a_score_is_that_of_a_shorter_history(shop, truth):
    from promax_nb.recommend.guided import guided_without

    line, near = ease(shop.train, 20.0), item_knn(shop.train, 20)
    both = reshape(line, {'h': history_guide(shop.train, truth[1]), 'c': near}, {'h': 0.6, 'c': 0.5}, shop.train)
    served = recommender(shop, both)
    gone, fewer = int(shop.train[[4]].indices[0]), shop.train.tolil()
    fewer[4, gone] = 0
    fewer = fewer.tocsr()
    guide = {'h': history_guide(fewer, truth[1]), 'c': lambda rows: (fewer[rows] @ near.weights).toarray()}
    short = reshape(lambda rows: fewer[rows] @ line.weights, guide, {'h': 0.6, 'c': 0.5}, served.known)
    np.testing.assert_allclose(guided_without(served, 4, gone, 'ours'), short.scores([4])[0], atol=1e-4)


@pytest.mark.parametrize(
    'adds,low,told',
    [(0.1, 0.02, 'worth using'), (0.03, 0.01, 'a little'), (0.12, -0.05, 'a try'), (0.02, -0.01, 'little')],
)
def test_the_gate_promises_what_it_can_know(adds, low, told):
    """A large gain with a wide interval is no reason to expect little."""
    chosen = {'guide': 'history', 'space': 'centred', 'form': 'z', 'alpha': 0.4}
    found = TextGate(0.07, 0.04, 0.02, 'EASE', 0.05, adds, low, 0.3, 'ndcg@20', chosen, 749, pd.DataFrame())
    assert found.sentence().endswith(f'{told}.')
