"""Lists, neighbours and the folder to ship, against plain loops."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from promax_nb.data.frames import from_frame
from promax_nb.models.scorers import Scorer, as_scorer
from promax_nb.recommend.build import best_run, recommender, recommender_of
from promax_nb.recommend.folder import load_recommender


def odd_shop(seed=0, n_users=30, n_items=25):
    """Events of people whose ids begin with zeros, hold spaces, slashes and other alphabets."""
    rng = np.random.default_rng(seed)
    users = [f'{row:03d}' if row % 3 else f'Zoë / {row}' for row in range(n_users)]
    items = [f'B{row:04d}' if row % 4 else f'книга, {row}' for row in range(n_items)]
    rows = [(u, i, int(rng.integers(1, 6))) for u in users for i in rng.choice(items, 12, replace=False)]
    table = pd.DataFrame({'item': items, 'title': [f'Book <b>{row}</b>' for row in range(n_items)]})
    return from_frame(pd.DataFrame(rows, columns=['user', 'item', 'rating']), table, kcore=0)


@pytest.fixture(scope='module')
def shop():
    return odd_shop()


@pytest.fixture(scope='module')
def numbers(shop):
    rng = np.random.default_rng(1)
    return tuple(rng.normal(size=(n, 6)).astype(np.float32) for n in shop.shape)


@pytest.fixture(scope='module')
def served(shop, numbers):
    return recommender(shop, numbers, base=numbers[0] @ numbers[1].T, vectors=numbers)


def plain_list(shop, scores, user, n, filter_known=True):
    """The list of a user by a loop over items."""
    row = shop.users.user.tolist().index(user)
    known = {shop.items.item[i] for i in shop.events[shop.events.user == row].item} if filter_known else set()
    order = sorted(range(shop.n_items), key=lambda i: (-scores[row, i], i))
    return [shop.items.item[i] for i in order if shop.items.item[i] not in known][:n]


@pytest.mark.parametrize('filter_known', [True, False])
def test_lists_are_what_a_plain_loop_finds(shop, numbers, served, filter_known):
    scores = (numbers[0] @ numbers[1].T).astype(float)
    lists = served.recommend(n=7, filter_known=filter_known, memory=1e-5)
    assert lists.user.unique().tolist() == shop.users.user.tolist()
    for user, part in lists.groupby('user', sort=False):
        assert part.item.tolist() == plain_list(shop, scores, user, 7, filter_known)
        assert part['rank'].tolist() == list(range(1, len(part) + 1))
        assert part.score.is_monotonic_decreasing
    titles = dict(zip(shop.items.item, shop.items.title, strict=True))
    assert (lists.title == lists.item.map(titles)).all()


def test_disliked_and_held_out_items_are_known(shop, served):
    disliked = shop.events[shop.events.rating < 4]
    assert len(disliked) and shop.test.nnz
    shown = served.recommend(n=shop.n_items)
    pairs = set(zip(shown.user, shown.item, strict=True))
    for event in shop.events.itertuples():
        assert (shop.users.user[event.user], shop.items.item[event.item]) not in pairs


def test_users_come_in_the_order_asked_and_once(shop, served):
    a, b = shop.users.user[[4, 2]]
    assert served.recommend([a, b, a], n=1).user.tolist() == [a, b]


@pytest.mark.parametrize('how, sentence', [
    ({'users': '1'}, 'no user is called'), ({'users': 'Zoe / 3'}, 'Zoë / 3'), ({'users': []}, None),
    ({'n': 0}, 'n=0'), ({'n': True}, 'n=True'), ({'allow': ['B9999']}, 'no item is called'),
    ({'where': {'titel': 'x'}}, 'they have title'), ({'side': 'them'}, 'side='), ({'unknown': 'drop'}, 'unknown='),
])
def test_what_cannot_be_asked_is_told(served, how, sentence):
    if sentence is None:
        assert served.recommend(**how).columns.tolist() == ['user', 'rank', 'item', 'title', 'score']
        return
    with pytest.raises(ValueError, match='.') as told:
        served.recommend(**how)
    assert sentence in str(told.value)


def test_a_condition_that_nothing_meets_is_told(served):
    with pytest.warns(UserWarning, match='no item has title = .Bok.: there is e.g. Book'):
        assert served.recommend(n=3, where={'title': 'Bok'}).empty


def test_strangers_by_choice(shop, served):
    known = shop.users.user[0]
    with pytest.warns(UserWarning, match='left out'):
        assert served.recommend(['nobody', known], n=1, unknown='warn').user.tolist() == [known]
    popular = served.recommend(['nobody', known], n=5, unknown='popular')
    counts = np.asarray(shop.train.sum(0)).ravel()
    assert popular.attrs['popular'] == ['nobody']
    assert popular.score[:5].tolist() == sorted(counts.tolist(), reverse=True)[:5]


def test_lists_in_a_file_are_the_lists(served, tmp_path):
    told = []
    path = served.recommend_to(tmp_path / 'lists.parquet', 4, ('base', 'ours'), memory=1e-6,
                               progress=lambda done, text: told.append(done))
    table = pd.read_parquet(path)
    assert table[table.side == 'ours'].item.tolist() == served.recommend(n=4).item.tolist()
    assert table[table.side == 'base'].item.tolist() == served.recommend(n=4, side='base').item.tolist()
    assert told[-1] == 1 and len(told) > 10  # several blocks


def test_neighbours_are_what_a_plain_loop_finds(shop, numbers, served):
    units = numbers[1] / np.linalg.norm(numbers[1], axis=1, keepdims=True)
    for row in range(5):
        cosines = units @ units[row]
        order = [i for i in np.argsort(-cosines) if i != row][:6]
        found = served.similar_items(shop.items.item[row], 6)
        assert found.item.tolist() == shop.items.item[order].tolist()
        assert np.allclose(found.score, cosines[order], atol=1e-6)


def test_a_closed_form_is_served_and_shipped(shop, tmp_path):
    gram = (shop.train.T @ shop.train).toarray()
    ease = Scorer(lambda rows: shop.train[rows] @ gram, shop.shape)
    served = recommender(shop, ease)
    back = load_recommender(served.save(tmp_path / 'ship'))
    assert back.recommend(n=5).equals(served.recommend(n=5))
    with pytest.raises(ValueError, match='vectors'):
        back.similar_items(shop.items.item[0])
    with pytest.raises(ValueError, match='GiB'):
        served.save(tmp_path / 'too-large', memory=1e-9)
    assert not (tmp_path / 'too-large').exists()


def test_a_saved_recommender_gives_the_same_answers(served, tmp_path):
    back = load_recommender(served.save(tmp_path / 'ship'))
    for side in ('ours', 'base'):
        assert back.recommend(side=side).equals(served.recommend(side=side))
    assert back.similar_users(back.users.user[0]).equals(served.similar_users(back.users.user[0]))
    assert back.shape == served.shape and np.array_equal(back.vectors[0], served.vectors[0])


def test_loading_needs_no_training_code(served, tmp_path):
    folder = served.save(tmp_path / 'ship')
    heavy = ('torch', 'promax_nb.models.train', 'sklearn')
    code = (
        f'import sys\nfrom promax_nb.recommend.folder import load_recommender\n'
        f'served = load_recommender({str(folder)!r})\n'
        f'print(len(served.recommend(n=3)), [name for name in {heavy} if name in sys.modules])'
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert out.split() == [str(3 * served.shape[0]), '[]']


@pytest.mark.parametrize('harm', ['cut', 'flip', 'lost', 'newer'])
def test_a_damaged_folder_is_refused(served, tmp_path, harm):
    folder = served.save(tmp_path / 'ship')
    file = next(folder.glob('parts-*')) / 'known.npz'
    content = file.read_bytes()
    if harm == 'cut':
        file.write_bytes(content[:-7])
    elif harm == 'flip':
        file.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    elif harm == 'lost':
        file.unlink()
    else:
        index = folder / 'recommender.json'
        index.write_text(index.read_text().replace('"version": 2', '"version": 99'))
    with pytest.raises(ValueError, match='newer' if harm == 'newer' else 'damaged'):
        load_recommender(folder)


def test_the_best_seed_is_served(shop, numbers):
    class Run:
        def __init__(self, score):
            self.users, self.items, self.best_score = *numbers, score

    runs = [Run(0.1), Run(0.3), Run(0.2)]
    assert best_run(runs) is runs[1]
    with pytest.raises(ValueError, match='list of 2'):
        best_run([numbers, numbers])


def test_arrays_of_others_are_served(numbers):
    served = recommender_of(numbers, [f'u{n}' for n in range(30)], range(25), known=sp.eye(30, 25))
    assert '3' not in served.recommend('u3', n=25).item.tolist()
    assert as_scorer(served, served.shape).scores([0]).shape == (1, 25)  # it is itself something that ranks
