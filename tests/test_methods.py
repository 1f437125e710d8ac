"""Closed forms, reshaping at score level, the gate, and what validation recommends."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from promax_nb.data.bookshop import toy_data
from promax_nb.methods import Method, cheap_lines, method_entries, recommended, text_method
from promax_nb.models.closed import ease, item_knn, popularity
from promax_nb.models.distributions import standardised
from promax_nb.models.evaluate import evaluate
from promax_nb.models.gate import gate, spaces_of, text_choice, text_faults
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
    found = text_choice(line, {'truth': truth}, shop.train, shop.valid)
    best = found.tried.value.max()
    assert found.after.mean() <= best + 1e-12 and len(found.users) == (np.diff(shop.valid.indptr) > 0).sum()
    few = text_choice(line, {'truth': truth}, shop.train, shop.valid, most=40)
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
    here, there = method_entries(methods, shop), method_entries(methods, turned)
    assert all(here[name]['valid'] == there[name]['valid'] for name in here)
    assert any(here[name]['test'] != there[name]['test'] for name in here)
    assert len({tuple(entry) for entry in here.values()}) == 1


def test_alike_methods_are_named(shop):
    line = as_scorer(popularity(shop.train))
    values = pd.Series(np.random.default_rng(0).random(50))
    nearly = values[::-1].reset_index(drop=True) + 1e-6
    methods = [Method(name, [line], table) for name, table in (('a', values), ('b', nearly), ('c', values - 0.5))]
    told = recommended(methods)
    assert told['method'] == 'b' and told['why'].endswith('Not shown to be worse, over the users: a.')
