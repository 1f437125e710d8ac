"""The data door: what comes out of files is read rightly, or said, or refused in a sentence."""

import datetime
import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

from promax_nb.data.frames import from_frame
from promax_nb.data.interactions import SPLITS, RecData
from promax_nb.data.loaders import from_atomic
from promax_nb.data.published import from_rlmrec
from promax_nb.data.saved import load, save


def pairs():
    return [(f'u{u}', f'i{i:02d}') for u in range(12) for i in range(u % 3, 24, 2)]


def log(**more):
    "140 events of 12 users and 24 items, and columns made from their numbers."
    frame = pd.DataFrame(pairs(), columns=['user', 'item'])
    return frame.assign(**{k: [f(j) for j in range(len(frame))] for k, f in more.items()})


def shelf(**more):
    titles = [f'Book {i}' for i in range(24)]
    return pd.DataFrame({'item': [f'i{i:02d}' for i in range(24)], 'title': titles}).assign(**more)


@pytest.fixture
def told():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        yield caught


def sentences(told):
    from promax_nb.data.columns import DataWarning

    return [str(w.message) for w in told if issubclass(w.category, DataWarning)]


def positives(data):
    return sum(getattr(data, s).nnz for s in SPLITS)


# ---- columns that were named


STARS = log(stars=lambda j: 1 + j % 5, when=lambda j: 60 * j)


@pytest.mark.parametrize(
    'named, sentence',
    [
        (dict(rating='star'), "no column 'star'.*Did you mean 'stars'"),
        (dict(rating='rating'), "no column 'rating'"),
        (dict(time='wen'), "no column 'wen'.*Did you mean 'when'"),
        (dict(time='time'), "no column 'time'"),
        (dict(user='User'), "no column 'User'.*Did you mean 'user'"),
        (dict(item='itme'), "no column 'itme'.*Did you mean 'item'"),
        (dict(keep=['wehn']), "no column 'wehn'.*Did you mean 'when'"),
        (dict(items=shelf(), title='titel'), "items has no column 'titel'.*Did you mean 'title'"),
        (dict(items=shelf(), title='title', text='text'), "items has no column 'text'"),
        (dict(items=shelf().rename(columns={'item': 'items'})), "items has no column 'item'.*Did you mean 'items'"),
        (dict(users=pd.DataFrame({'users': ['u1']})), "users has no column 'user'.*Did you mean 'users'"),
        (dict(title='name'), 'items is None'),
    ],
)
def test_a_named_column_must_be_there(named, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_frame(STARS, kcore=0, **named)


def test_columns_that_look_like_ours_are_told(told):
    data = from_frame(log(Rating=lambda j: 1 + j % 5, timestamp=lambda j: j), kcore=0)
    assert len(sentences(told)) == 2 and data.meta['warnings'] == sentences(told)
    assert "rating='Rating'" in sentences(told)[0] and "time='timestamp'" in sentences(told)[1]
    assert from_frame(STARS, kcore=0).meta['warnings'] == []


def test_a_column_that_stands_twice_is_refused():
    twice = pd.concat([STARS, STARS[['user']]], axis=1)
    with pytest.raises(ValueError, match="'user' more than once"):
        from_frame(twice, kcore=0)
    with pytest.raises(ValueError, match="'title' more than once"):
        from_frame(STARS, pd.concat([shelf(), shelf()[['title']]], axis=1), kcore=0)
    with pytest.raises(ValueError, match='events is a list'):
        from_frame(pairs())


def test_the_named_title_is_the_title():
    both = shelf(title='Dr.', name=[f'Book {i}' for i in range(24)], text='x', blurb='about the sea')
    data = from_frame(STARS, both, title='name', text='blurb', kcore=0)
    assert data.items.title[0] == 'Book 0' and data.items.text[0] == 'about the sea'
    assert data.items.other_title[0] == 'Dr.' and data.items.other_text[0] == 'x' and 'name' not in data.items
    only = from_frame(STARS, shelf(), text='title', kcore=0)
    assert only.items.title[0] == only.items.text[0] == 'Book 0'
    same = from_frame(STARS, shelf().rename(columns={'title': 'name'}), title='name', text='name', kcore=0)
    assert same.items.title[3] == same.items.text[3] == 'Book 3'
    crossed = from_frame(STARS, shelf(text='about the sea'), title='text', text='title', kcore=0)
    assert crossed.items.title[0] == 'about the sea' and crossed.items.text[0] == 'Book 0'
    ids = from_frame(STARS, shelf(), title='item', kcore=0)
    assert ids.items.title[4] == 'i04' == ids.items.item[4]


def test_names_of_ours_in_other_tables_are_kept_aside():
    events = STARS.rename(columns={'user': 'who', 'item': 'asin'}).assign(item='note', split='mine', positive=3)
    items = shelf().rename(columns={'item': 'asin', 'title': 'item'}).assign(user='author')
    users = pd.DataFrame({'who': [f'u{u}' for u in range(12)], 'user': 'Ada'})
    names = dict(user='who', item='asin', rating='stars', title='item', keep=['item', 'split', 'positive', 'when'])
    data = from_frame(events, items, users, kcore=0, **names)
    assert data.items.title[5] == 'Book 5' and data.items.item[5] == 'i05' and data.items.user[5] == 'author'
    assert data.users.user[0] == 'u0' and data.users.other_user[0] == 'Ada'
    assert set(data.events.other_item) == {'note'} and set(data.events.other_split) == {'mine'}
    assert set(data.events.other_positive) == {3} and set(data.events.split) == set(SPLITS) and 'when' in data.events
    assert from_frame(STARS, keep='when', kcore=0).events.when.notna().all()


def test_column_names_that_are_numbers(tmp_path):
    events, items = STARS.copy(), shelf()
    events.columns, items.columns = range(4), [1, 0]
    data = from_frame(events, items, user=0, item=1, rating=2, time=3, title=0, kcore=0)
    assert data.items.title[7] == 'Book 7' and load(save(data, tmp_path / 'd')).hash() == data.hash()


# ---- ids


def ids_of(values):
    "Events and an item table whose item ids are `values` (24 of them), and their titles back by id."
    numbers = pd.Series([int(item[1:]) for _, item in pairs()])
    return log().assign(item=numbers.map(dict(enumerate(values))))


TWENTY_FOUR = range(100, 124)
FORMS = {
    'int': pd.Series(list(TWENTY_FOUR)),
    'int32': pd.Series(list(TWENTY_FOUR), dtype='int32'),
    'float': pd.Series([float(i) for i in TWENTY_FOUR]),
    'text': pd.Series([str(i) for i in TWENTY_FOUR]),
    'object': pd.Series([i if i % 2 else str(i) for i in TWENTY_FOUR], dtype=object),
    'floats as objects': pd.Series([float(i) for i in TWENTY_FOUR], dtype=object),
    'float text': pd.Series([f'{i}.0' for i in TWENTY_FOUR]),
    'Int64': pd.Series(list(TWENTY_FOUR), dtype='Int64'),
    'Float64': pd.Series(list(TWENTY_FOUR), dtype='Float64'),
    'string': pd.Series([str(i) for i in TWENTY_FOUR], dtype='string'),
    'category': pd.Series([str(i) for i in TWENTY_FOUR], dtype='category'),
    'category of ints': pd.Series(list(TWENTY_FOUR), dtype='category'),
    'arrow text': pd.Series([str(i) for i in TWENTY_FOUR], dtype='string[pyarrow]'),
    'arrow int': pd.Series(list(TWENTY_FOUR), dtype='int64[pyarrow]'),
    'bytes': pd.Series([str(i).encode() for i in TWENTY_FOUR], dtype=object),
}


@pytest.mark.parametrize('here', FORMS)
@pytest.mark.parametrize('there', ['int', 'text', 'float', 'category', 'arrow int'])
def test_ids_of_every_kind_meet(here, there):
    rows = [int(item[1:]) for _, item in pairs()]
    events = log().drop(columns='item').assign(item=FORMS[here].take(rows).reset_index(drop=True))
    items = pd.DataFrame({'item': FORMS[there], 'title': [f'Book {i}' for i in TWENTY_FOUR]})
    data = from_frame(events, items, kcore=0)
    assert data.meta['items_without_title'] == 0 and data.meta['warnings'] == []
    assert data.items.item.tolist() == [str(i) for i in TWENTY_FOUR]


def test_ids_are_compared_as_text():
    codes = [f'{i:03d}' for i in range(12)] + [str(i) for i in range(12)]
    events = ids_of(codes)
    data = from_frame(events, pd.DataFrame({'item': codes, 'title': [f'Book {c}' for c in codes]}), kcore=0)
    assert data.n_items == 24 and data.items.title.tolist() == [f'Book {c}' for c in codes]


def test_blanks_and_unicode_forms_are_one_id_and_said(told):
    codes = ['café', 'naïve'] + [f'c{i}' for i in range(22)]
    items = pd.DataFrame({'item': ['cafe\u0301', ' naïve ', *codes[2:]], 'title': [f'Book {i}' for i in range(24)]})
    data = from_frame(ids_of(codes), items, kcore=0)
    assert data.meta['items_without_title'] == 0 and data.items.item[0] == 'café'
    assert len(sentences(told)) == 1 and '2 ids' in sentences(told)[0] and data.meta['warnings'] == sentences(told)


def test_ids_that_lost_digits_are_refused():
    events = log().assign(user=[76561197960265728.0 + j for j in range(140)])
    with pytest.raises(ValueError, match=r'above 2\*\*53.*dtype=str'):
        from_frame(events, kcore=0)
    assert from_frame(log().assign(user=[76561197960265728 + j % 12 for j in range(140)]), kcore=0).n_users == 12


@pytest.mark.parametrize('kind', ['float32', 'Float32', 'float[pyarrow]'])
def test_ids_in_single_precision_are_refused_earlier(kind):
    there = pd.Series([2**24 + j % 12 for j in range(140)])
    with pytest.raises(ValueError, match=r'above 2\*\*24.*dtype=str'):
        from_frame(log().assign(user=there.astype('float32').astype(kind)), kcore=0)
    assert from_frame(log().assign(user=(there - 2**24).astype(kind)), kcore=0).users.user[11] == '11'


def test_ids_that_are_lists_or_hold_half_a_character(told):
    with pytest.raises(ValueError, match='events.user holds lists or dicts'):
        from_frame(log().assign(user=[[j % 12] for j in range(140)]), kcore=0)
    odd = pd.Series(['\ud800' if user == 'u3' else user for user in log().user], dtype=object)
    assert '?' in set(from_frame(log().assign(user=odd), kcore=0).users.user)


def test_the_id_nan_is_said(told):
    from_frame(log().assign(user=lambda f: f.user.replace('u3', 'nan')), kcore=0)
    assert "'nan'" in sentences(told)[0]


def test_ids_of_data_built_by_hand_are_text():
    one = sp.csr_matrix(np.eye(3))
    made = RecData(
        one, one[[1, 2, 0]], one[[2, 0, 1]], pd.DataFrame({'user': [7, 8, 9]}), pd.DataFrame({'item': [1.0, 2, 3]})
    )
    assert made.users.user.tolist() == ['7', '8', '9'] and made.items.item.tolist() == ['1', '2', '3']


@pytest.mark.parametrize(
    'there, guess',
    [
        ([f'{i}' for i in range(24)], None),
        ([f'I{i:02d}' for i in range(24)], 'in lower case'),
        ([f'item-{i:02d}' for i in range(24)], 'with digits only'),
    ],
)
def test_an_item_table_of_other_ids_is_refused(there, guess):
    items = pd.DataFrame({'item': there, 'title': 'x'})
    with pytest.raises(ValueError, match=f"items does not belong.*{guess or ''}.*'i00'.*{there[0]!r}"):
        from_frame(log(), items, kcore=0)
    with pytest.raises(ValueError, match='users does not belong'):
        from_frame(log(), users=pd.DataFrame({'user': ['v1', 'v2']}), kcore=0)


def test_leading_zeros_are_guessed():
    codes = [f'{i:04d}' for i in range(1, 25)]
    with pytest.raises(ValueError, match='without leading zeros: 100%'):
        from_frame(ids_of(codes), pd.DataFrame({'item': range(1, 25), 'title': 'x'}), kcore=0)


def test_an_item_table_that_meets_few_events_is_said(told):
    data = from_frame(log(), shelf().head(5), kcore=0)
    (said,) = sentences(told)
    assert (
        '21%' in said
        and "events have 'i06'" in said
        and "the table has 'i00'" in said
        and data.meta['warnings'] == [said]
    )
    assert from_frame(log(), shelf().head(13), kcore=0).meta['warnings'] == []


# ---- times


def seconds(values, **more):
    events = log().head(len(values)) if len(values) < 140 else log()
    column = values if isinstance(values, pd.Series) else pd.Series(values)
    data = from_frame(events.assign(time=column), kcore=0, **more)
    return data


START = pd.Timestamp('2024-05-01 10:00:00')
STEPS = [START + pd.Timedelta(hours=j, milliseconds=250 * (j % 2)) for j in range(140)]
EXACT = sorted((t - pd.Timestamp(0)).total_seconds() for t in STEPS)
TIMES = {
    'seconds': [t.timestamp() for t in STEPS],
    'milliseconds': [int(t.timestamp() * 1e3) for t in STEPS],
    'microseconds': [int(t.timestamp() * 1e6) for t in STEPS],
    'nanoseconds': [int(t.timestamp() * 1e3) * 10**6 for t in STEPS],
    'milliseconds as text': [str(int(t.timestamp() * 1e3)) for t in STEPS],
    'nullable milliseconds': pd.Series([int(t.timestamp() * 1e3) for t in STEPS], dtype='Int64'),
    'arrow milliseconds': pd.Series([int(t.timestamp() * 1e3) for t in STEPS], dtype='int64[pyarrow]'),
    'iso': [t.isoformat() for t in STEPS],
    'iso with blanks': [str(t) for t in STEPS],
    'iso with zones': [t.tz_localize('UTC').tz_convert('Asia/Tokyo').isoformat() for t in STEPS],
    'iso with two zones': [
        t.tz_localize('UTC').tz_convert(['Asia/Tokyo', 'UTC'][j % 2]).isoformat() for j, t in enumerate(STEPS)
    ],
    'iso with Z': [t.isoformat() + 'Z' for t in STEPS],
    'iso as category': pd.Series([t.isoformat() for t in STEPS], dtype='category'),
    'datetime64': pd.Series(STEPS),
    'datetime64[s] of whole seconds': None,
    'with a zone': pd.Series(STEPS).dt.tz_localize('UTC').dt.tz_convert('Europe/Berlin'),
    'datetimes as objects': pd.Series([t.to_pydatetime() for t in STEPS], dtype=object),
    'arrow timestamps': pd.Series(STEPS).astype('timestamp[ns][pyarrow]'),
}
TIMES.pop('datetime64[s] of whole seconds')


@pytest.mark.parametrize('kind', TIMES)
def test_times_of_every_kind(kind):
    data = seconds(TIMES[kind], split='temporal')
    assert np.allclose(sorted(data.events.time), EXACT, atol=1e-4) and data.meta['warnings'] == []


DATES = {
    'dates': [t.date().isoformat() for t in STEPS],
    'date objects': pd.Series([t.date() for t in STEPS], dtype=object),
    'whole numbers': [int(f'{t:%Y%m%d}') for t in STEPS],
    'slashes, year first': [f'{t:%Y/%m/%d}' for t in STEPS],
    'words': [f'{t:%B %d, %Y}' for t in STEPS],
    'day-Mon-year': [f'{t:%d-%b-%Y}' for t in STEPS],
    'twitter': [f'{t:%a %b %d 00:00:00 +0000 %Y}' for t in STEPS],
    'periods': pd.Series(pd.PeriodIndex(STEPS, freq='D')),
}


@pytest.mark.parametrize('kind', DATES)
def test_dates_of_every_kind(kind):
    days = sorted((t.normalize() - pd.Timestamp(0)).total_seconds() for t in STEPS)
    assert sorted(seconds(DATES[kind]).events.time) == days


def test_dates_far_away_and_in_bytes():
    assert seconds(['9999-12-31'] * 140).events.time[0] == 253402214400.0
    assert seconds(['1600-01-01'] * 140).events.time[0] == -11676096000.0
    assert seconds(pd.Series([b'2021-05-03'] * 140, dtype=object)).events.time[0] == 1_620_000_000


def test_years_and_orders():
    assert set(seconds([2019 + j % 3 for j in range(140)]).events.time) == {1546300800.0, 1577836800.0, 1609459200.0}
    order = seconds(list(range(140)))
    assert sorted(order.events.time) == list(range(140)) and order.meta['time_unit'] == 'numbers'
    assert seconds(TIMES['milliseconds']).meta['time_unit'] == 'milliseconds'


def test_missing_times(told):
    some = [None if j % 5 == 0 else t.isoformat() for j, t in enumerate(STEPS)]
    assert seconds(some).events.time.isna().sum() == 28
    assert seconds(['' if t is None else t for t in some]).events.time.isna().sum() == 28
    assert [s.partition(':')[0] for s in sentences(told)] == [
        '28 of 140 events have no time, so the split is random within each user'
    ] * 2
    assert seconds([None] * 140).events.time.isna().all() and seconds([float('inf')] * 140).events.time.isna().all()
    assert sorted(seconds(pd.Series(pd.to_timedelta(range(140), unit='h'))).events.time)[:2] == [0, 3600]
    zero = seconds([0 if j % 5 == 0 else t for j, t in enumerate(TIMES['seconds'])])
    assert zero.events.time.isna().sum() == 28 and '28 of 140 times are 0 or -1' in sentences(told)[2]


@pytest.mark.parametrize(
    'values, sentence',
    [
        ([f'{t:%d/%m/%Y}' for t in STEPS], 'read in two ways'),
        ([f'{t:%m/%d/%Y %H:%M}' for t in STEPS], 'read in two ways'),
        ([f'{t:%d.%m.%Y}' for t in STEPS], 'read in two ways'),
        ([f'{t:%d-%m-%y}' for t in STEPS], 'read in two ways'),
        ([f'{t:%m %d, %Y}' for t in STEPS], 'read in two ways'),
        (['2024-13-05'] * 140, 'read in two ways'),
        ([45000 + j for j in range(140)], 'spreadsheet'),
        ([45000.5 + j for j in range(140)], 'spreadsheet'),
        ([str(45000 + j) for j in range(140)], 'spreadsheet'),
        ([t if j % 2 else t * 1000 for j, t in enumerate(TIMES['seconds'])], 'mixes units'),
        ([t.isoformat() if j % 2 else t.timestamp() for j, t in enumerate(STEPS)], 'mixes numbers and dates'),
        (['10:30'] * 140, 'neither numbers nor dates'),
        (['now'] * 140, 'neither numbers nor dates'),
        (['some day'] * 140, 'neither numbers nor dates'),
        ([(1, 2)] * 140, r'neither numbers nor dates \(such as \(1, 2\)'),
        ([True] * 140, 'these are no times'),
    ],
)
def test_times_that_can_be_misread_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        seconds(values)


# ---- ratings


@pytest.mark.parametrize('sign', [0, -1])
@pytest.mark.parametrize('kind', [int, float, str, 'Int64', 'category'])
def test_zero_and_minus_one_are_no_ratings(sign, kind, told):
    from promax_nb.profiles.prompts import user_prompts

    events = log(rating=lambda j: sign if j % 3 == 0 else 3 + j % 7).astype({'rating': kind})
    data = from_frame(events, shelf(), kcore=0, threshold=7)
    never = sum(j % 3 == 0 for j in range(140))
    assert data.meta['unrated'] == never and data.meta['unrated_values'] == [sign]
    assert len(data.events) == 140 - never and data.events.rating.min() == 3
    assert any(f'{never} of 140 events' in s and 'none was given' in s for s in data.meta['warnings'])
    assert not any(f'({sign})' in prompt for prompt in user_prompts(data).prompt)
    every = from_frame(events, kcore=0, threshold=None)
    assert positives(every) == 140 and every.events.rating.isna().sum() == never


def test_what_looks_like_no_rating_may_be_one():
    both = log(rating=lambda j: j % 2)
    assert positives(from_frame(both, kcore=0, threshold=1)) == 70
    assert positives(from_frame(log(rating=lambda j: [-1, 1, 1][j % 3]), kcore=0, threshold=1)) == 93
    halves = log(rating=lambda j: 0.5 * (j % 11))
    assert 'unrated' not in from_frame(halves, kcore=0, threshold=3).meta
    marked = log(rating=lambda j: 0 if j % 3 == 0 else 3 + j % 7)
    said = from_frame(marked, kcore=0, threshold=7, unrated=[])
    assert 'unrated' not in said.meta and len(said.events) == 140
    other = from_frame(log(rating=lambda j: 99 if j % 3 == 0 else 3 + j % 7), kcore=0, threshold=7, unrated=99)
    assert other.meta['unrated'] == 47 and other.events.rating.max() == 9
    assert positives(from_frame(marked, kcore=0, threshold=0)) == 140
    with pytest.raises(ValueError, match="unrated is 'zero'"):
        from_frame(marked, unrated='zero')


def test_a_lowest_rating_that_may_mean_none_is_said(told):
    data = from_frame(log(rating=lambda j: 0.5 * (j % 11)), kcore=0, threshold=3)
    assert 'lowest rating, 0' in sentences(told)[0] and 'unrated=0' in sentences(told)[0] and len(data.events) == 140
    assert len(from_frame(log(rating=lambda j: 0.5 * (j % 11)), kcore=0, threshold=3, unrated=0).events) == 127


@pytest.mark.parametrize('code, liked', [(99, 'liked'), (-999, 'disliked')])
def test_a_number_of_nines_far_from_all_ratings_is_said(code, liked, told):
    def jester(j):
        return code if j % 7 == 0 else j % 20 - 9

    from_frame(log(rating=jester), kcore=0, meta={'allow_cold': True}, threshold=-5)
    assert f'rating, {code}, and count as {liked}' in sentences(told)[0] and f'unrated={code}' in sentences(told)[0]
    assert (
        len(from_frame(log(rating=jester), kcore=0, meta={'allow_cold': True}, threshold=-5, unrated=code).events)
        == 120
    )
    told.clear()
    from_frame(
        log(rating=lambda j: 1 + j % 99), kcore=0, meta={'allow_cold': True}, threshold=20
    )  # percentages: 99 is one of them
    assert not any('rating' in sentence for sentence in sentences(told))


def test_a_threshold_that_is_no_number_is_refused():
    for threshold in ('4', float('nan'), [4]):
        with pytest.raises(ValueError, match='threshold is .*give a number, or None'):
            from_frame(log(rating=lambda j: j % 5 + 1), kcore=0, threshold=threshold)


def test_a_threshold_without_ratings_is_said(told):
    from_frame(log(), kcore=0, threshold=7)
    assert 'threshold=7 has nothing to part' in sentences(told)[0]
    from_frame(log(), kcore=0)
    assert len(sentences(told)) == 1


def test_ratings_that_are_not_there_are_refused():
    for rating, sentence in (
        (lambda j: None if j == 3 else 5, '1 events have no rating'),
        (lambda j: float('inf') if j == 3 else 5, 'infinite'),
        (lambda j: '4,5', 'not a number'),
        (lambda j: 0, 'no rating reaches threshold=4'),
    ):
        with pytest.raises(ValueError, match=sentence):
            from_frame(log(rating=rating), kcore=0)


def test_a_threshold_that_parts_nothing_is_said(told):
    much = from_frame(log(rating=lambda j: 2 if j % 20 == 0 else 5 + j % 6), kcore=0)
    (said,) = sentences(told)
    assert (
        '95.0%' in said and 'nearly every event' in said and 'from 2 to 10' in said and much.meta['warnings'] == [said]
    )
    from_frame(log(rating=lambda j: 5 if j % 30 == 0 else 3), kcore=0, ratios=(0.4, 0.3, 0.3), threshold=3)
    assert 'nearly every event' in sentences(told)[1]
    with pytest.raises(ValueError, match='no training item|is empty'):
        from_frame(log(rating=lambda j: 5 if j % 30 == 0 else 3), kcore=0)
    assert 'hardly any event' in sentences(told)[2]
    assert from_frame(log(rating=lambda j: 1 + j % 5), kcore=0).meta['warnings'] == []


# ---- cells


DRAMA = {
    'list': ['Drama', 'Comedy'],
    'tuple': ('Drama', 'Comedy'),
    'set': {'Drama', 'Comedy'},
    'array': np.array(['Drama', 'Comedy'], dtype=object),
    'array of texts': np.array(['Drama', 'Comedy']),
    'dicts': [{'id': 18, 'name': 'Drama'}, {'id': 35, 'name': 'Comedy'}],
    'counts': {'Drama': 4, 'Comedy': 1},
    'nested': [['Drama'], ['Comedy']],
    'python': "['Drama', 'Comedy']",
    'python tuple': "('Drama', 'Comedy')",
    'python set': "{'Drama', 'Comedy'}",
    'python dicts': "[{'id': 18, 'name': 'Drama'}, {'id': 35, 'name': 'Comedy'}]",
    'json': '["Drama", "Comedy"]',
    'json dicts': '[{"id": 18, "name": "Drama", "x": null}, {"id": 35, "name": "Comedy", "x": true}]',
    'numpy print': "['Drama' 'Comedy']",
    'numpy repr': "array(['Drama', 'Comedy'], dtype=object)",
    'bare': '[Drama, Comedy]',
    'postgres': '{Drama,Comedy}',
    'bars': 'Drama|Comedy',
    'semicolons': 'Drama; Comedy',
    'commas': 'Drama,Comedy',
    'slashes': 'Drama / Comedy',
    'lines': 'Drama\nComedy',
}


@pytest.mark.parametrize('kind', DRAMA)
def test_lists_of_every_kind_are_their_values(kind, tmp_path):
    from promax_nb.profiles.prompts import facts

    items = shelf()
    items['genres'] = pd.Series([DRAMA[kind]] * 24, dtype=object)
    for table in (items, from_frame(log(), items, kcore=0).items):
        found = facts(table)
        assert sorted(found[found['item'] == 3].value) == ['Comedy', 'Drama'] and set(found.field) == {'genres'}
    data = from_frame(log(), items, kcore=0)
    again = load(save(data, tmp_path / 'd'))
    assert type(again.items.genres[0]) is type(data.items.genres[0]) and again.identity() == data.identity()
    assert sorted(facts(again.items).query('item == 3').value) == ['Comedy', 'Drama']


@pytest.mark.parametrize(
    'cell, values',
    [
        ('Arts &amp; Crafts, Toys', ['Arts & Crafts', 'Toys']),
        ('1,000', ['1,000']),
        (1999.0, ['1999']),
        (0.25, ['0.25']),
        ('(500) Days of Summer', ['(500) Days of Summer']),
        ('[]', []),
        ('{}', []),
        ('', []),
        (None, []),
        (float('nan'), []),
        (pd.NA, []),
        (pd.NaT, []),
        ([None, 'a', ''], ['a']),
        ("['a', nan]", ['a']),
        ('[nan]', []),
        ("['nan bread', nan]", ['nan bread']),
        ('set()', []),
        (True, ['True']),
        (b'Drama', ['Drama']),
        ({'avatar': 'x', 'name': 'Ada'}, ['Ada']),
        ({'Brand': 'Lund', 'Colors': ['red', 'blue']}, ['Brand Lund', 'Colors red', 'Colors blue']),
        ('[' * 3000 + ']' * 3000, ['[' * 3000 + ']' * 3000]),
    ],
)
def test_single_cells(cell, values):
    from promax_nb.data.cells import cell_values

    assert cell_values(cell) == values


COLUMNS = {
    'category': lambda s: s.astype('category'),
    'string': lambda s: s.astype('string'),
    'arrow': lambda s: s.astype('string[pyarrow]'),
    'dictionary': lambda s: s.astype('category').astype('object').astype('category'),
    'object': lambda s: s.astype(object),
}


@pytest.mark.parametrize('kind', COLUMNS)
@pytest.mark.parametrize('column', ['item', 'title', 'text'])
def test_texts_in_every_kind_of_column(kind, column, tmp_path):
    items = shelf(text=pd.Series([None, 'about the sea'] * 12))
    items.loc[2, 'title'] = None
    items[column] = COLUMNS[kind](items[column])
    data = from_frame(log(), items, kcore=0)
    assert data.items.title[:3].tolist() == ['Book 0', 'Book 1', 'item i02'] and data.items.text[0] == ''
    assert data.meta['items_without_title'] == 1 and data.meta['items_without_text'] == 12
    assert load(save(data, tmp_path / 'd')).identity() == data.identity()


def test_texts_are_as_they_were_meant(tmp_path):
    items = shelf(
        text=pd.Series([['A harbour.', 'A letter.'], "['A harbour.', 'A letter.']", 'A &lt;b&gt; &amp;amp; c'] * 8)
    )
    items.loc[:3, 'title'] = ['Tom &amp; Jerry', 'AT&T &copy', '[REC]', '&#39;Salem&#39;s Lot']
    data = from_frame(log(), items, kcore=0)
    assert data.items.title[:4].tolist() == ['Tom & Jerry', 'AT&T &copy', '[REC]', "'Salem's Lot"]
    assert data.items.text[:3].tolist() == ['A harbour. A letter.', 'A harbour. A letter.', 'A <b> & c']
    assert load(save(data, tmp_path / 'd')).identity() == data.identity()


def test_other_columns_survive_saving(tmp_path):
    items = shelf(
        kind=pd.Series(['a', 'b'] * 12, dtype='category'),
        size=pd.Series([1, None] * 12, dtype='Int64'),
        arrow=pd.Series([1, None] * 12, dtype='int64[pyarrow]'),
        when=pd.Series(pd.Timestamp('2024-01-01')),
        day=pd.Series([pd.Timestamp('2024-01-01')] * 24).astype('datetime64[s]'),
        zone=pd.Series([pd.Timestamp('2024-01-01', tz='Asia/Tokyo')] * 24),
        moment=pd.Series([datetime.datetime(2024, 1, 1), None] * 12, dtype=object),
        flag=pd.Series([True, None] * 12, dtype=object),
        number=pd.Series([1, None] * 12, dtype=object),
        code=pd.Series([1, None] * 12, dtype='Int64').astype('category'),
        pages=pd.Series([1.5, 2] * 12, dtype='float32'),
        tags=pd.Series([{'b', 'a'}] * 24),
        notes=pd.Series([np.array(['x', 'y'])] * 24),
    )
    data = from_frame(log(), items, kcore=0)
    again = load(save(data, tmp_path / 'd'))
    assert again.items.tags[0] == ['a', 'b'] and again.items.notes[0] == ['x', 'y'] and again.items.kind[1] == 'b'
    assert again.identity() == data.identity()


# ---- files


@pytest.mark.parametrize('ending', ['csv', 'tsv', 'csv.gz', 'parquet'])
def test_ids_in_files_stay_as_they_are(ending, tmp_path):
    from promax_nb.experiment import DataConfig, load_data

    ids = [f'{i:03d}' for i in range(24)]
    events = ids_of(['B' + ids[0], *ids[1:]])
    items = pd.DataFrame({'item': ids, 'title': [f'Book {i}' for i in range(24)], 'genre': 'crime'})
    for name, table in (('ev', events), ('items', items)):
        path = tmp_path / f'{name}.{ending}'
        if ending == 'parquet':
            table.to_parquet(path)
        else:
            table.to_csv(path, sep='\t' if ending == 'tsv' else ',')  # with pandas' row numbers
    data = load_data(
        DataConfig(events=str(tmp_path / f'ev.{ending}'), items=str(tmp_path / f'items.{ending}'), kcore=0)
    )
    assert data.meta['items_without_title'] == 1 and data.items.title.str.startswith('Book').sum() == 23
    assert data.items.columns.tolist() == ['item', 'title', 'text', 'genre'] and data.items.item[0] == '001'


@pytest.mark.parametrize(
    'named, sentence',
    [
        (dict(rating_column='star'), "no column 'star'.*Did you mean 'stars'"),
        (dict(time_column='wen'), "no column 'wen'.*Did you mean 'when'"),
        (dict(user_column='usr'), "no column 'usr'.*Did you mean 'user'"),
        (dict(title_column='titel'), "no column 'titel'.*Did you mean 'title'"),
        (dict(text_column='blurb'), "no column 'blurb'"),
    ],
)
def test_a_column_named_in_settings_must_be_there(named, sentence, tmp_path):
    from promax_nb.experiment import DataConfig, load_data

    STARS.to_csv(tmp_path / 'ev.csv', index=False)
    shelf().to_csv(tmp_path / 'items.csv', index=False)
    with pytest.raises(ValueError, match=sentence):
        load_data(DataConfig(events=str(tmp_path / 'ev.csv'), items=str(tmp_path / 'items.csv'), kcore=0, **named))


def test_read_table(tmp_path, told):
    from promax_nb.data.loaders import read_table

    path = tmp_path / 'ev.csv'
    for text in (
        '\ufeffuser;n\n007;1\nNA;2\n',
        'user,n\n007,1\nNA,2\n',
        'user\tn\n007\t1\nNA\t2\n',
        'user|n\n007|1\nNA|2\n',
        '"user","n"\n"007",1\n"NA",2\n',
        '"user";"n"\n"007";"1"\n"NA";"2"\n',
        'user,n\n"007","1"\n"NA","2"\n',
    ):
        path.write_text(text, encoding='utf-8')
        table = read_table(path, ids=['user', 'absent'])
        assert table.user.tolist() == ['007', 'NA'] and table.n.tolist() == [1, 2]
    path.write_bytes('user\tn\r\n007\t1\r\nNA\t2\r\n'.encode('utf-16'))
    assert read_table(path, ['user']).user.tolist() == ['007', 'NA']
    assert not sentences(told)
    path.write_text('user,title\n7,Good, Bad\n8,Tea\n', encoding='utf-8')
    assert 'more cells than its header' in read_table(path, ['user']).attrs['warnings'][0]
    assert 'put texts that hold the separator into quotes' in sentences(told)[0]
    told.clear()
    path.write_bytes('user,title\n7,Café\n'.encode('cp1252'))
    assert read_table(path, ['user']).title[0] == 'Café' and 'not UTF-8' in sentences(told)[0]
    assert from_frame_of(read_table(path, ['user'])).meta['warnings'] == sentences(told)[:1]
    path.write_bytes(b'')
    with pytest.raises(ValueError, match='ev.csv cannot be read as a table'):
        read_table(path)
    with pytest.raises(FileNotFoundError, match='no file .*gone.csv'):
        read_table(tmp_path / 'gone.csv')


def from_frame_of(titles):
    events = log()
    events.attrs.update(titles.attrs)
    return from_frame(events, kcore=0)


def atomic(folder):
    events = log(rating=lambda j: 1 + j % 5, timestamp=lambda j: 1_620_000_000_000 + 60_000 * j)
    events.columns = ['user_id:token', 'item_id:token', 'rating:float', 'timestamp:float']
    events.to_csv(folder / 'mini.inter', sep='\t', index=False)
    items = shelf(categories='Drama War')
    items['title'] = items['title'].replace('Book 0', 'Tom &amp; Jerry')
    items.columns = ['item_id:token', 'movie_title:token_seq', 'categories:token_seq']
    items.to_csv(folder / 'mini.item', sep='\t', index=False)
    return folder


def test_atomic_files_pass_the_same_door(tmp_path):
    data = from_atomic(atomic(tmp_path), kcore=0)
    assert data.meta['time_unit'] == 'milliseconds' and data.events.time.min() == 1_620_000_000
    assert data.items.title[0] == 'Tom & Jerry'
    for named in ({'rating': 'stars'}, {'time': 'time'}, {'title': 'title'}, {'user': 'user'}, {'item': 'item'}):
        with pytest.raises(ValueError, match=f'no column {next(iter(named.values()))!r}'):
            from_atomic(tmp_path, kcore=0, **named)
    (tmp_path / 'mini.item').unlink()
    with pytest.raises(ValueError, match="title='movie_title' names a column of the .item file"):
        from_atomic(tmp_path, title='movie_title')


def test_lists_in_texts_that_are_joined(tmp_path):
    atomic(tmp_path)
    records = [
        {'id': f'i{i:02d}', 'genres': "['Drama', 'War']", 'plot': ['A harbour.', 'A letter.'], 'year': 1999.0}
        for i in range(24)
    ]
    (tmp_path / 'items_info.json').write_text(json.dumps(records))
    text = from_atomic(tmp_path, kcore=0).items.text[0]
    assert text == 'A harbour. A letter. Genres: Drama, War. Year: 1999.'


# ---- published files


def published(folder, m=12, n=9, kind=sp.coo_matrix, **change):
    "The layout of RLMRec as people download it; `change` replaces files by what is given."
    rng = np.random.default_rng(0)
    order = rng.permutation(m * n)
    train = np.union1d(np.arange(m) * n, order[:50])
    left = np.setdiff1d(order, train)

    def pairs_of(cells):
        return kind(sp.coo_matrix((np.ones(len(cells)), (cells // n, cells % n)), shape=(m, n)))

    files = {'trn_mat': pairs_of(train), 'val_mat': pairs_of(left[:15]), 'tst_mat': pairs_of(left[15:30])}
    files['new_trn_rag_mat'] = sp.csr_matrix(pairs_of(np.append(train, left[30:34])))
    files |= {k: v for k, v in change.items()}
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / f'{name}.pkl').write_bytes(value if isinstance(value, bytes) else pickle.dumps(value))
    return files


def twice(matrix, n):
    "The same with the first n stored pairs once more."
    cells = matrix.tocoo()
    rows, columns = np.append(cells.row, cells.row[:n]), np.append(cells.col, cells.col[:n])
    return sp.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=matrix.shape)


def test_pairs_that_count_twice_are_binarised_and_said(tmp_path, told):
    plain = published(tmp_path)
    straight = from_rlmrec(tmp_path)
    assert not sentences(told) and straight.meta['augmented_repeated'] == 0
    augmented = sp.csr_matrix(twice(plain['new_trn_rag_mat'], 3))
    assert augmented.max() == 2
    published(tmp_path, new_trn_rag_mat=augmented)
    data = from_rlmrec(tmp_path)
    assert data.extras['augmented'].max() == 1 and data.meta['augmented_repeated'] == 3
    assert data.meta['augmented_edges'] == straight.meta['augmented_edges'] == 4
    assert '3 of' in sentences(told)[0] and data.meta['warnings'] == sentences(told)
    assert load(save(data, tmp_path / 'kept')).meta['augmented_repeated'] == 3


def test_splits_that_hold_pairs_twice_load(tmp_path, told):
    plain = published(tmp_path)
    straight = from_rlmrec(tmp_path)
    published(
        tmp_path, trn_mat=twice(plain['trn_mat'], 5), tst_mat=sp.coo_matrix(plain['tst_mat'] + 0 * plain['tst_mat'])
    )
    data = from_rlmrec(tmp_path)
    assert data.hash() == straight.hash() and data.meta['repeated'] == {'trn_mat.pkl': 5}
    both = sp.coo_matrix(
        plain['tst_mat'] + sp.coo_matrix(plain['trn_mat']).tocsr().multiply(plain['trn_mat'].toarray() > 0)
    )
    published(tmp_path, tst_mat=both)
    data = from_rlmrec(tmp_path)
    assert data.hash() == straight.hash() and data.meta['in_two_splits'] == {'tst_mat.pkl': plain['trn_mat'].nnz}
    assert any('earlier split' in s for s in sentences(told))


@pytest.mark.parametrize('file', ['trn_mat', 'val_mat', 'tst_mat', 'new_trn_rag_mat'])
def test_weights_are_refused(file, tmp_path):
    plain = published(tmp_path)
    for weights in (0.5 * plain[file], 1.5 * plain[file], -1 * plain[file]):
        published(tmp_path, **{file: weights})
        with pytest.raises(ValueError, match=f'{file}.pkl holds .* where a whole number'):
            from_rlmrec(tmp_path)
    if file != 'new_trn_rag_mat':
        published(tmp_path, **{file: plain[file].toarray()})
        with pytest.raises(ValueError, match=f'{file}.pkl holds a ndarray'):
            from_rlmrec(tmp_path)


@pytest.mark.parametrize('kind', [sp.coo_matrix, sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.coo_array])
@pytest.mark.parametrize('dtype', [np.float64, np.float32, np.int64, np.int8, bool])
def test_matrices_of_every_kind(kind, dtype, tmp_path):
    made = published(tmp_path, kind=lambda m: kind(m.astype(dtype)))
    assert (from_rlmrec(tmp_path).train != sp.csr_matrix(made['trn_mat'])).nnz == 0


def old_modules(value, protocol=4):
    "A pickle as numpy 1 and scipy 1.7 wrote it."
    raw = pickle.dumps(value, protocol=2)
    for new, old in (
        (b'numpy._core.', b'numpy.core.'),
        (b'scipy.sparse._coo', b'scipy.sparse.coo'),
        (b'scipy.sparse._csr', b'scipy.sparse.csr'),
    ):
        raw = raw.replace(new, old)
    return raw


def test_pickles_of_older_libraries(tmp_path):
    made = published(tmp_path)
    straight = from_rlmrec(tmp_path)
    published(tmp_path, **{k: old_modules(v) for k, v in made.items()}, usr_emb_np=old_modules(np.ones((12, 4))))
    data = from_rlmrec(tmp_path)
    assert data.hash() == straight.hash() and data.extras['user_vectors'].shape == (12, 4)


@pytest.mark.parametrize(
    'raw',
    [
        {i: {'profile': f'p{i}', 'reasoning': 'r'} for i in range(12)},
        {str(i): {'profile': f'p{i}'} for i in range(12)},
        {np.int64(i): f'p{i}' for i in range(12)},
        [{'profile': f'p{i}'} for i in range(12)],
        np.array([f'p{i}' for i in range(12)], dtype=object),
        dict(reversed([(i, {'profile': f'p{i}'}) for i in range(12)])),
    ],
)
def test_profiles_of_every_kind(raw, tmp_path):
    published(tmp_path, usr_prf=raw)
    data = from_rlmrec(tmp_path)
    assert data.extras['user_profiles'] == [f'p{i}' for i in range(12)] and data.meta['user_profiles_missing'] == 0


@pytest.mark.parametrize(
    'file, raw, sentence',
    [
        ('usr_prf', {f'A{i}': {'profile': 'x'} for i in range(12)}, "12 ids that are no rows.*'A0'"),
        ('usr_prf', {i: {'summary': 'x'} for i in range(12)}, "no text under 'profile'.*'summary'"),
        ('usr_prf', 7, 'holds a int'),
        ('itm_prf', {9: 'x'}, 'profile for id 9 but there are only 9'),
        ('itm_emb_np', np.full((9, 4), np.nan), 'not finite'),
        ('itm_emb_np', [[1, 2], [3]], 'one vector per row'),
        ('usr_emb_np', np.ones((9, 4)), r'shape \(9, 4\) but there are 12 users'),
    ],
)
def test_files_that_do_not_belong_are_refused(file, raw, sentence, tmp_path):
    published(tmp_path, **{file: raw})
    with pytest.raises(ValueError, match=sentence):
        from_rlmrec(tmp_path)


@pytest.mark.parametrize(
    'raw',
    [
        np.ones((12, 4)),
        np.ones((12, 1, 4)),
        [[1.0] * 4] * 12,
        {i: np.ones(4) for i in range(12)},
        np.ones((12, 4), np.float16),
    ],
)
def test_vectors_of_every_kind(raw, tmp_path):
    published(tmp_path, usr_emb_np=raw)
    assert (from_rlmrec(tmp_path).extras['user_vectors'] == np.ones((12, 4), np.float32)).all()


def test_users_without_a_training_item_are_said(tmp_path, told):
    made = published(tmp_path)
    train = sp.lil_matrix(made['trn_mat'])
    train[5] = 0
    published(tmp_path, trn_mat=sp.coo_matrix(train))
    with pytest.raises(ValueError, match='1 of 12 users have no training item.*allow_cold=True'):
        from_rlmrec(tmp_path)
    assert from_rlmrec(tmp_path, allow_cold=True).train[5].nnz == 0 and '1 of 12 users' in sentences(told)[0]


def test_the_folder_above_says_what_is_in_it(tmp_path):
    published(tmp_path / 'yelp')
    published(tmp_path / 'steam')
    with pytest.raises(FileNotFoundError, match='no trn_mat.pkl.*steam, yelp'):
        from_rlmrec(tmp_path)
    assert from_rlmrec(tmp_path / 'yelp').name == 'yelp'


def test_dates_before_the_epoch_and_after():
    old = [datetime.datetime(1960 + j % 20, 1, 1).isoformat() for j in range(140)]
    assert seconds(old).events.time.min() == -315619200.0
