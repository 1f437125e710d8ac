"""What training knows of the time after it: other users' future, and columns that have counted it."""

import warnings

import numpy as np
import pandas as pd
import pytest

from promax_nb.data.audit import ATTRIBUTES, FUTURE, audit
from promax_nb.data.bookshop import toy_data
from promax_nb.data.columns import DataWarning
from promax_nb.data.frames import from_frame
from promax_nb.data.hindsight import counting_columns, counts_by_name, future_of_others
from promax_nb.profiles.prompts import item_prompts, user_prompts


def logged(shop):
    user, item = shop.users.user[shop.events.user], shop.items.item[shop.events.item]
    return shop.events.drop(columns='split').assign(user=user.to_numpy(), item=item.to_numpy())


@pytest.fixture(scope='module')
def shop():
    return toy_data(200, 120, seed=3)


def read(shop, split):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DataWarning)
        return from_frame(logged(shop), shop.items, kcore=0, split=split, allow_cold=split == 'global')


def row(data, check, **parts):
    return audit(data, **parts).set_index('check').loc[check]


def test_counted_by_hand():
    """u: train 1, 2, test 5; v: train 3, 8, test 9; w: no test, train 6, 7."""
    events = [('u', 'a', 1, 'train'), ('u', 'b', 2, 'train'), ('u', 'c', 5, 'test'), ('v', 'a', 3, 'train')]
    events += [('v', 'b', 8, 'train'), ('v', 'd', 9, 'test'), ('w', 'c', 6, 'train'), ('w', 'd', 7, 'train')]
    events += [('w', 'a', 7.5, 'valid')]
    table = pd.DataFrame(events, columns=['user', 'item', 'time', 'part'])
    found = future_of_others(from_frame(table, split='part', kcore=0))
    # later than 5: 6, 7, 8 of the four that are not u's; later than 9: nothing
    assert found == {'later': 3, 'share': pytest.approx((3 / 4 + 0) / 2), 'own': 0.0}
    table.loc[table.time == 2, 'time'] = 5.5
    found = future_of_others(from_frame(table, split='part', kcore=0))
    assert found == {'later': 4, 'share': pytest.approx((3 / 4 + 0) / 2), 'own': 0.5}


@pytest.mark.parametrize('split, own', [('random', True), ('temporal', False)])
def test_the_future_of_others_is_told(shop, split, own):
    data = read(shop, split)
    found = row(data, FUTURE, graph=data.train)
    assert found['passed'] and found['count'] > 100 and '% of the training events of others' in found.detail
    assert ('their own' in found.detail) == own


def test_one_cut_has_none_and_must_have_none(shop):
    data = read(shop, 'global')
    assert row(data, FUTURE, graph=data.train)['count'] == 0
    late = data.events.index[data.events.split == 'train'][5]
    data.events.loc[late, 'time'] = data.events.time.max() + 1
    assert not row(data, FUTURE, graph=data.train)['passed']
    with pytest.raises(ValueError, match='the audit failed: training events later'):
        audit(data, graph=data.train, strict=True)


def test_without_times_that_two_share_nothing_is_said(shop):
    table = logged(shop)
    counted = table.assign(time=table.sort_values('time').groupby('user').cumcount())
    for rows in (table.drop(columns='time'), counted):
        data = from_frame(rows, kcore=0)
        assert FUTURE not in set(audit(data, graph=data.train).check)
    assert FUTURE not in set(audit(shop).check)  # nobody asked about a graph


# ---- attributes

NAMES = {
    True: 'avg_rating n_ratings numRatings average-rating rating_count popularity review_count votes sales_rank count',
    False: 'year pages page_count n_players price avg_length number runtime numeral country strategic discount',
}


@pytest.mark.parametrize('name, told', [(name, told) for told, names in NAMES.items() for name in names.split()])
def test_names(name, told):
    assert counts_by_name(name) == told


def columns(data):
    """Columns of known kinds: seen (all events), earlier (training alone), innocent."""
    every, train = data.events, data.events[data.events.split == 'train']
    n, rng = data.n_items, np.random.default_rng(0)
    seen = {
        'a': np.bincount(every.item, minlength=n),
        'b': -np.sqrt(np.bincount(every.item, minlength=n)),
        'c': every.groupby('item').rating.mean().reindex(range(n)).round(2).to_numpy(),
        'd': pd.Series((data.train + data.valid + data.test).getnnz(0)).astype(str).to_numpy(),
    }
    innocent = {
        'e': np.bincount(train.item, minlength=n),
        'f': train.groupby('item').rating.mean().reindex(range(n)).to_numpy(),
        'g': rng.integers(1950, 2020, n),
        'h': rng.permutation(n),
        'i': np.bincount(train.item, minlength=n) + rng.normal(0, 0.3, n),
        'j': data.train.getnnz(0),
        'k': np.full(n, 3),
    }
    return seen, innocent


@pytest.mark.parametrize('split', ['random', 'temporal', 'global'])
def test_values_give_it_away(shop, split):
    data = read(shop, split)
    seen, innocent = columns(data)
    data.items = data.items.assign(**seen, **innocent)
    found = counting_columns(data)
    assert set(found.column) == set(seen) and found.seen.all() and (found.side == 'item').all()
    assert 'the mean rating' in found.set_index('column').why['c']


def test_the_audit_names_them(shop):
    data = read(shop, 'temporal')
    assert row(data, ATTRIBUTES)['count'] == 0 and row(data, ATTRIBUTES).detail == 'none'
    data.items = data.items.assign(heat=np.bincount(data.events.item, minlength=data.n_items), avg_rating=range(120))
    data.users = data.users.assign(n_ratings=np.bincount(data.events.user, minlength=data.n_users))
    found = row(data, ATTRIBUTES)
    assert found['passed'] and found['count'] == 3
    assert 'items.heat goes with the number of events' in found.detail and 'users.n_ratings' in found.detail
    assert 'items.avg_rating is called as if it counted events' in found.detail


def test_they_stay_out_of_prompts(shop):
    data = read(shop, 'temporal')
    heat = 1000 + np.bincount(data.events.item, minlength=data.n_items)
    data.items = data.items.assign(heat=heat, votes=7000 + np.random.default_rng(0).permutation(data.n_items))
    with pytest.warns(DataWarning, match='left out of prompts: heat'):
        prompts = item_prompts(data)
    assert not prompts.prompt.str.contains('heat: ').any() and prompts.prompt.str.contains('votes: 7').all()
    with pytest.warns(DataWarning, match='left out of prompts: heat'):
        assert not user_prompts(data).prompt.str.contains('heat: ').any()
    assert item_prompts(data, fields=['heat']).prompt.str.contains('heat: 10').all()


def test_nothing_is_told_of_an_ordinary_table(shop):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        item_prompts(shop)
    assert counting_columns(shop).empty


def test_real_tables_are_ordinary(real):
    from promax_nb.data.loaders import from_atomic

    found = counting_columns(from_atomic(real('ml-100k'), kcore=5))
    assert not found.seen.any(), found.to_string()
