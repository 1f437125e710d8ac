"""Data that grows keeps its rows, and a model that grows with it begins where it ended."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse as sp

import promax_nb.data.growth  # noqa: F401
from promax_nb.data.bookshop import toy_data
from promax_nb.data.columns import DataWarning
from promax_nb.data.frames import from_frame
from promax_nb.data.interactions import SPLITS
from promax_nb.models.bases import GCCF, MF, LightGCN
from promax_nb.models.objectives import BPR, attach_objective
from promax_nb.models.train import fit
from promax_nb.models.warm import warm_start

QUICK = dict(batch=512, lr=3e-3, min_steps=0, progress=False, device='cpu')


def log(users=40, items=25, each=10, seed=0):
    rng = np.random.default_rng(seed)
    chosen = np.concatenate([rng.permutation(items)[:each] for _ in range(users)])
    rows = {'user': [f'u{u}' for u in range(users) for _ in range(each)], 'item': [f'i{i}' for i in chosen]}
    time = 1.6e9 + 9e4 * np.tile(np.arange(each), users)
    return pd.DataFrame(rows).assign(time=time, rating=rng.integers(3, 6, users * each))


@pytest.fixture(scope='module')
def old():
    shelf = pd.DataFrame({'item': [f'i{i}' for i in range(25)], 'kind': 'a'})
    shelf['title'] = [f'Thing {i}' for i in range(25)]
    return from_frame(log(), shelf, kcore=2, threshold=4)


DAY = pd.DataFrame({'user': ['u3', 'new', 'new', 'new'], 'item': ['fresh', 'i1', 'i2', 'fresh'], 'time': 1.7e9})
DAY['rating'] = [5, 4, 2, 5]


def corner(data, other):
    """The matrices of `data`, as far as the rows of `other` go."""
    users, items = other.shape
    return [getattr(data, split)[:users, :items] for split in SPLITS]


def test_old_rows_and_splits_stay(old):
    before = old.identity()
    data = old.extend(DAY)
    assert old.identity() == before and data.shape == (old.n_users + 1, old.n_items + 1)
    pd.testing.assert_frame_equal(data.users.head(old.n_users), old.users)
    pd.testing.assert_frame_equal(data.items.head(old.n_items)[list(old.items)], old.items)
    for split, mine in zip(SPLITS, corner(data, old), strict=True):
        assert (mine != getattr(old, split)).nnz == 0
    assert data.users.user.iloc[-1] == 'new' and data.items.item.iloc[-1] == 'fresh'


def test_new_events_are_for_training(old):
    data = old.extend(DAY)
    assert data.train.nnz == old.train.nnz + 3 and data.test.nnz == old.test.nnz
    new = data.events[data.events.user == data.n_users - 1]
    assert len(new) == 3 and set(new.split) == {'train'} and sorted(new.rating) == [2, 4, 5]  # a disliked one, too
    assert data.train[data.n_users - 1].nnz == 2
    assert data.meta['extended'] == [{'events': 4, 'known': 0, 'users': 1, 'items': 1}]


def test_a_column_says_where_they_go(old):
    data = old.extend(DAY.assign(part=['test', 'train', 'train', 'Test']), split='part')
    assert data.test.nnz == old.test.nnz + 2 and data.train.nnz == old.train.nnz + 1
    assert old.extend(DAY.assign(part='test'), split='part', allow_cold=True).test.nnz == old.test.nnz + 3
    with pytest.raises(ValueError, match='1 of 41 users have no training item.*allow_cold=True'):
        old.extend(DAY.assign(part='test'), split='part')
    with pytest.raises(ValueError, match="neither train, valid nor test.*'soon'"):
        old.extend(DAY.assign(part='soon'), split='part')


def test_what_is_known_stays(old):
    data = old.extend(log())
    assert data.hash() == old.hash() and data.meta['extended'][0]['known'] == sum(getattr(old, s).nnz for s in SPLITS)
    twice = old.extend(pd.concat([DAY, DAY]))
    assert twice.hash() == old.extend(DAY).hash() == old.extend(DAY).extend(DAY).hash()


def test_the_later_word_counts_where_nobody_liked(old):
    disliked = old.events[old.events.rating < 4].iloc[0]
    pair = {'user': old.users.user[disliked['user']], 'item': old.items.item[disliked['item']]}
    pair |= {'rating': 5, 'time': 1.7e9}
    data = old.extend(pd.DataFrame([pair]))
    assert data.train[disliked['user'], disliked['item']] == 1 and len(data.events) == len(old.events)
    liked = old.test.tocoo()
    pair |= {'user': old.users.user[liked.row[0]], 'item': old.items.item[liked.col[0]], 'rating': 3}
    assert old.extend(pd.DataFrame([pair])).hash() == old.hash()


def test_tables_describe_what_is_new(old):
    items = pd.DataFrame({'item': ['fresh', 'i3'], 'title': ['Pine smoke', 'Another name'], 'kind': 'b'})
    data = old.extend(DAY, items=items, users=pd.DataFrame({'user': ['new'], 'age': [30]}))
    assert data.items.title.iloc[-1] == 'Pine smoke' and data.items.kind.tolist()[-2:] == ['a', 'b']
    assert data.items.title[data.items.item == 'i3'].item() == 'Thing 3' and data.users.age.iloc[-1] == 30
    assert old.extend(DAY).items.title.iloc[-1] == 'item fresh'


def test_other_names_and_numbers_for_ids(old):
    codes = log().assign(user=lambda t: t.user.str[1:].astype(int), item=lambda t: t.item.str[1:].astype(int))
    data = from_frame(codes, kcore=2)
    day = pd.DataFrame({'who': [3, 99], 'what': [7.0, 8.0], 'stars': [5, 5], 'when': [1.7e9] * 2})
    grown = data.extend(day, user='who', item='what', rating='stars', time='when')
    assert grown.users.user.tolist() == [*data.users.user, '99'] and grown.n_items == data.n_items


def test_what_came_along_grows():
    data = from_frame(log(), kcore=2)
    data.extras |= {'user_profiles': ['p'] * 40, 'item_vectors': np.ones((25, 3), np.float32), 'truth': {'likes': 1}}
    with pytest.warns(DataWarning, match='extras truth'):
        grown = data.extend(DAY)
    assert grown.extras['user_profiles'] == ['p'] * 40 + [''] and grown.extras['item_vectors'].shape == (26, 3)
    assert 'truth' not in grown.extras and len(data.extras['user_profiles']) == 40


def test_what_a_core_dropped_comes_back():
    rare = pd.DataFrame({'user': ['new', 'new', 'gone'], 'item': ['i1', 'odd', 'i1'], 'time': 1.5e9, 'rating': 5})
    data = from_frame(pd.concat([log(), rare]), kcore=3)
    assert len(data.extras['dropped']) == 3
    grown = data.extend(pd.DataFrame({'user': ['new'], 'item': ['i2'], 'time': [1.7e9], 'rating': [5]}))
    items = grown.items.item[grown.train[grown.n_users - 1].indices].tolist()
    assert sorted(items) == ['i1', 'i2'] and grown.users.user.iloc[-1] == 'new'
    assert sorted(grown.extras['dropped'].item) == ['i1', 'odd'] and len(data.extras['dropped']) == 3


def test_ratings_mean_what_they_meant():
    data = from_frame(log().assign(rating=lambda t: t.rating.where(t.index % 5 > 0, -1)), kcore=0)
    day = DAY.assign(rating=[-1, 3, 2, 5])
    grown = data.extend(day)
    assert data.meta['unrated_values'] == [-1] and grown.meta['extended'][0]['events'] == 3
    assert grown.train.nnz == data.train.nnz + 1
    with pytest.raises(ValueError, match='2 new events have no rating'):
        data.extend(day.assign(rating=[5, None, None, 5]))
    with pytest.warns(DataWarning, match='every row counts as a positive'):
        assert data.extend(DAY.drop(columns='rating')).train.nnz == data.train.nnz + 4


def test_refused(old):
    for events, sentence in ((DAY.head(0), 'nothing new'), (DAY.rename(columns={'user': 'who'}), "no column 'user'")):
        with pytest.raises(ValueError, match=sentence):
            old.extend(events)
    with pytest.raises(ValueError, match='does not belong to the events'):
        old.extend(DAY, items=pd.DataFrame({'item': ['i-fresh'], 'title': ['x']}))


# ---- a warm start


@pytest.fixture(scope='module')
def shop():
    """Yesterday without a quarter of the readers, today with them."""
    world = toy_data(400, 200, seed=4)
    user, item = world.users.user[world.events.user], world.items.item[world.events.item]
    rows = world.events.assign(user=user.to_numpy(), item=item.to_numpy()).rename(columns={'split': 'part'})
    late = rows.user.isin(world.users.user.sample(100, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DataWarning)
        yesterday = from_frame(rows[~late], split='part', kcore=0)
    return yesterday, yesterday.extend(rows[late], split='part')


@pytest.fixture(scope='module')
def learned(shop):
    return fit(LightGCN(shop[0], dim=16), BPR(), shop[0], epochs=45, **QUICK)


@pytest.mark.parametrize('base', [MF, LightGCN, GCCF])
def test_rows_go_by_id(base):
    before, now = (['a', 'b', 'c'], ['x', 'y']), (['c', 'new', 'a'], ['y', 'x', 'z'])
    ones = {ids: np.eye(3, n) for ids, n in (('old', 2), ('new', 3))}
    ones = {name: sp.csr_matrix(matrix) for name, matrix in ones.items()}
    old, (new, fresh) = base(ones['old'], dim=4, seed=1), (base(ones['new'], dim=4, seed=2) for _ in range(2))
    model = warm_start(new, old, before, now)
    assert model is new
    for side, rows in (('user', [2, None, 0]), ('item', [1, 0, None])):
        for place, row in enumerate(rows):
            start = getattr(fresh, side)[place] if row is None else getattr(old, side)[row]
            assert torch.equal(getattr(model, side)[place], start), (side, place)
    others = [name for name, _ in model.named_parameters() if name not in ('user', 'item')]
    assert all(torch.equal(model.state_dict()[name], old.state_dict()[name]) for name in others)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_few_epochs_reach_what_many_did(shop, learned):
    yesterday, today = shop
    many = fit(LightGCN(today, dim=16), BPR(), today, epochs=45, **QUICK)
    cold = fit(LightGCN(today, dim=16), BPR(), today, epochs=9, **QUICK)
    warm = fit(warm_start(LightGCN(today, dim=16), learned, yesterday, today), BPR(), today, epochs=9, **QUICK)
    assert warm.best_score > cold.best_score + 0.5 * (many.best_score - cold.best_score)
    assert warm.best_score > 0.95 * many.best_score


def test_from_a_folder(shop, learned, tmp_path):
    yesterday, today = shop
    learned.save(tmp_path / 'fit')
    one, other = (warm_start(MF(today, dim=16), old, yesterday, today) for old in (learned, tmp_path / 'fit'))
    assert torch.equal(one.user, other.user) and torch.equal(one.item, other.item)


def test_what_an_objective_learned_comes_along():
    class Weighed(BPR):
        def __init__(self, start):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(start))

    ids, ones = (['a', 'b'], ['x', 'y']), sp.csr_matrix(np.eye(2))
    old, new, learned, objective = MF(ones, dim=4), MF(ones, dim=4), Weighed(2.0), Weighed(1.0)
    attach_objective(old, learned)
    warm_start(new, old, ids, ids)
    assert objective.weight == 1
    warm_start(new, old, ids, ids, objective)
    assert objective.weight == 2


def test_what_does_not_fit_is_refused(shop, learned, tmp_path):
    from promax_nb.models.results import load_fit

    yesterday, today = shop
    model = MF(today, dim=16)
    learned.save(tmp_path / 'fit')
    for call, sentence in (
        (lambda: warm_start(MF(today, dim=8), learned, yesterday, today), '16 wide, the new one 8.*dim=16'),
        (lambda: warm_start(model, learned, today, today), 'old_ids has 400 users, the old model 300'),
        (lambda: warm_start(model, learned, yesterday, yesterday), 'new_ids has 300 users'),
        (lambda: warm_start(model, learned, (np.arange(300), np.arange(200)), today), 'no user of the old model'),
        (lambda: warm_start(model, learned, (['a'] * 300, np.arange(200)), today), 'more than once'),
        (lambda: warm_start(model, learned, 7, today), 'old_ids is a int: give RecData'),
        (lambda: warm_start(model, load_fit(tmp_path / 'fit'), yesterday, today), 'give the folder itself'),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
    with pytest.raises(FileNotFoundError, match='no model.safetensors'):
        warm_start(model, tmp_path, yesterday, today)
