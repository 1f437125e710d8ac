"""Guests and newcomers: what a sentence, a few items or a text are worth, against plain loops."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from promax_nb.data.frames import from_frame
from promax_nb.models.scorers import Scorer, array_scorer
from promax_nb.profiles.clauses import wishes
from promax_nb.recommend.build import recommender
from promax_nb.recommend.folder import load_recommender
from promax_nb.recommend.guests import GUEST, GUEST_WAYS
from promax_nb.recommend.trained import TrainedRecommender
from promax_nb.retrieval.embed import Whitening

WORDS = ('sea', 'crime', 'romance', 'war', 'music', 'space')


class Words:
    """A text model that counts words."""

    def __init__(self, name='words'):
        self.name = name

    def encode(self, texts, **options):
        return np.array([[text.lower().count(word) for word in WORDS] for text in texts], np.float32)


ENCODER = {'model': Words(), 'id': 'object:words'}


@pytest.fixture(scope='module')
def served():
    """Sixty books, ten for each word; thirty readers with two words each, who know some books of these."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(6), 10)
    si = np.eye(6, dtype=np.float32)[kinds]
    likes = np.array([rng.choice(6, 2, replace=False) for _ in range(30)])
    su = sum(np.eye(6, dtype=np.float32)[likes[:, part]] for part in (0, 1))
    known = (rng.random((30, 60)) < 0.3) * (su @ si.T > 0)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)  # the model's space is another one
    noise = [0.05 * rng.normal(size=(n, 6)).astype(np.float32) for n in (30, 60)]
    tables = array_scorer(3 * (su + noise[0]) @ turn, (si + noise[1]) @ turn)
    users = pd.DataFrame({'user': [f'reader {row}' for row in range(30)]})
    items = pd.DataFrame({'item': [f'b{row:02d}' for row in range(60)], 'title': [WORDS[kind] for kind in kinds]})
    place = (Whitening(np.zeros(6), np.eye(6)),) * 2
    events = sp.csr_matrix(known.astype(np.float32))
    return TrainedRecommender(
        users, items.assign(text=items.title), tables, events, events, base=tables, vectors=(su, si), place=place,
        encoder=dict(ENCODER), profiles=(['x'] * 30, items.title.tolist()),
    )


@pytest.mark.parametrize('text, wanted, unwanted', [
    ('I love slow crime stories by the sea, no romance', 'slow crime stories by the sea', 'romance'),
    ('Fantasy without war', 'Fantasy', 'war'),
    ('Not horror, but fantasy', 'fantasy', 'horror'),
    ('comedy but nothing with gore', 'comedy', 'with gore'),
    ('I hate musicals. Westerns!', 'Westerns', 'musicals'),
    ('Enjoys music; keeps away from war. Also space.', 'music. Also space', 'war'),
    ('[Like]\n- pace\n[Dislike]\n- Weak acting\n- gore', 'pace', 'Weak acting. gore'),
    ('Likes: sea, ships\nDislikes: war', 'sea, ships', 'war'),
    ('I cannot stand romance but enjoy crime', 'crime', 'romance'),
    ('not only crime', 'not only crime', ''), ('no matter what, space', 'no matter what, space', ''),
    ('forbidden love', 'forbidden love', ''), ('', '', ''), ('no romance', '', 'romance'),
])
def test_a_sentence_is_cut_where_it_turns(text, wanted, unwanted):
    assert wishes(text) == (wanted, unwanted)


def test_an_endless_sentence_is_cut_in_no_time():
    for hostile in ('no ' * 20000, 'do not ' * 10000, ' ' * 50000, '[' * 20000, 'but, ' * 10000):
        wishes(hostile)


def test_a_sentence_finds_its_shelf_and_leaves_what_is_not_wanted(served):
    liked = served.guest('I love crime, and the sea')
    assert set(liked.recommend(15).title) <= {'sea', 'crime'}
    without = served.guest('I love crime, no romance')
    both = served.guest('I love crime and romance')
    place = {name: who.recommend(60).set_index('item')['rank'] for name, who in (('no', without), ('yes', both))}
    romance = served.items.item[served.items.title == 'romance']
    assert place['no'][romance].min() > 30 and place['yes'][romance].min() <= 6
    assert without.wishes == ('crime', 'romance')


def test_a_guest_with_items_is_their_mean_as_long_as_users_are(served):
    rows = [3, 12, 14]
    guest = served.guest(items=served.items.item[rows].tolist(), how='items')
    users, items = served.ours.vectors
    mean = sum(items[row] for row in rows) / 3
    length = np.median([np.linalg.norm(user) for user in users])
    assert np.allclose(guest.vector, mean / np.linalg.norm(mean) * length, atol=1e-5)
    shown = guest.recommend(5)
    order = sorted(set(range(60)) - set(rows), key=lambda row: -float(items[row] @ guest.vector))
    assert shown.item.tolist() == served.items.item[order[:5]].tolist()
    assert guest.known.tolist() == rows and (shown.user == 'guest').all()
    assert list(shown) == ['user', 'rank', 'item', 'title', 'score']


def test_what_known_items_give_adds_up(served):
    guest = served.guest(items=['b03', 'b12', 'b14'], how='items')
    assert np.allclose(guest.gifts().sum(0), guest.scores(), atol=1e-4)
    mixed = served.guest('war', items=['b03', 'b12'])
    alone = mixed.scores() - mixed.gifts().sum(0)
    war = served.items.title == 'war'
    assert alone[war].mean() > alone[~war].mean() + 0.5 and served.guest('war').gifts() is None


def test_why_a_guest_is_shown_an_item(served):
    guest = served.guest('music, no romance', items=['b40', 'b12'])
    first = guest.recommend(1).item[0]
    why = guest.explain(first)
    assert why.standings['after'].rank == 1 and why.words == ['music'] and why.exact
    assert why.among == 58 and set(why.parts['history']['id']) == {'b40', 'b12'}
    table = why.frame()
    carried = table[table.part.isin(['history'])].value.sum()
    assert carried == pytest.approx(guest.gifts()[:, served.item_ids.rows(first)[1][0]].sum(), abs=1e-6)
    assert served.guest('music').explain(first).parts['history'].empty
    with pytest.raises(ValueError, match='no item is called'):
        guest.explain('b99')
    with pytest.raises(ValueError, match='one item'):
        guest.explain(['b01', 'b02'])


def test_a_mix_of_like_minded_users_is_what_a_loop_finds(served):
    guest = served.guest('crime by the sea', how='neighbours')
    su, users = served.vectors[0], served.ours.vectors[0]
    wanted = np.array([1, 1, 0, 0, 0, 0]) / np.sqrt(2)
    weights = [np.exp(profile @ wanted / np.linalg.norm(profile) / GUEST['neighbours_tau']) for profile in su]
    mixed = sum(weight * user for weight, user in zip(weights, users, strict=True)) / sum(weights)
    assert np.allclose(guest.vector / np.linalg.norm(guest.vector), mixed / np.linalg.norm(mixed), atol=1e-4)


@pytest.mark.parametrize('how', [way for way in GUEST_WAYS if way != 'items'])
def test_every_way_finds_the_taste(served, how):
    assert set(served.guest('space and music', how=how).recommend(6).title) <= {'space', 'music'}
    assert set(served.guest('space', items=['b55'], how=how).recommend(4).title) == {'space'}


def test_what_is_shown_can_be_limited(served):
    guest = served.guest('war', items=['b30'])
    assert 'b30' not in set(guest.recommend(60).item)
    assert 'b30' in set(guest.recommend(60, filter_known=False).item)
    assert guest.recommend(5, allow=['b01', 'b31'], block=['b31']).item.tolist() == ['b01']
    assert set(guest.recommend(60, where={'title': 'sea'}).title) == {'sea'}
    assert guest.recommend(3, side='base').item.tolist() == guest.recommend(3).item.tolist()
    disliked = served.guest(items=['b30', 'b41'], disliked=['b31'])
    assert not {'b30', 'b31', 'b41'} & set(disliked.recommend(60).item) and 'disliked' in disliked.how


def test_who_is_like_a_guest(served):
    found = served.guest('war', items=['b30']).similar_users(3)
    rows = served.user_ids.rows(found.user.tolist())[1]
    assert (served.vectors[0][rows, 3] > 0).all() and found.score.is_monotonic_decreasing


def test_a_vector_can_be_brought_along(served):
    vector = served.ours.vectors[0][4]
    guest = served.guest(vector=vector)
    shown = guest.recommend(60, filter_known=False)
    assert shown.item.tolist() == served.recommend(served.users.user[4], 60, filter_known=False).item.tolist()
    with pytest.raises(ValueError, match='wide'):
        served.guest(vector=vector[:2])


@pytest.mark.parametrize('asked, sentence', [
    ({}, 'nothing is known'), ({'items': []}, 'nothing is known'), ({'profile': '  '}, 'empty'),
    ({'items': 'b99'}, 'no item is called'), ({'profile': 'sea', 'how': 'itmes'}, "'items'"),
    ({'profile': 'sea', 'how': 'items'}, 'needs items'), ({'profile': 3}, 'empty'),
])
def test_what_is_no_guest_is_told(served, asked, sentence):
    with pytest.raises(ValueError, match='.') as told:
        served.guest(**asked)
    assert sentence in str(told.value)


def test_another_text_model_is_refused(served, tmp_path):
    back = load_recommender(served.save(tmp_path / 'ship'))
    with pytest.raises(ValueError, match='another one'):
        back.use_encoder(Words('other words'))
    here = back.use_encoder(Words())
    expected = served.guest('crime, no war', items='b01').recommend(20)
    assert here.guest('crime, no war', items='b01').recommend(20).equals(expected)
    here.encoder = None
    with pytest.raises(ValueError, match='which text model'):
        here.guest('crime')
    here.place = None
    with pytest.raises(ValueError, match='name items'):
        here.guest('crime')


def test_scores_without_vectors_are_borrowed_from_those_who_are_close(served):
    users, items = served.ours.vectors
    closed = Scorer(lambda rows: users[rows] @ items.T, served.shape)
    plain = TrainedRecommender(served.users, served.items, closed, served.known, served.train)
    assert set(plain.guest(items=['b20', 'b21'], how='items').recommend(5).title) == {'romance'}
    with pytest.raises(ValueError, match='needs a profile'):
        plain.guest(items=['b20'], how='neighbours')


def test_whom_the_core_left_out_is_a_guest():
    rng = np.random.default_rng(0)
    rows = [(f'u{user}', f'i{item}') for user in range(30) for item in rng.choice(20, 8, replace=False)]
    rows += [('rare', 'i3'), ('rare', 'i5'), ('lost', 'only here')]
    data = from_frame(pd.DataFrame(rows, columns=['user', 'item']), kcore=5, split='random')
    numbers = tuple(rng.normal(size=(n, 4)).astype(np.float32) for n in data.shape)
    served = recommender(data, numbers)
    shown = served.recommend(['u3', 'rare', 'u1'], n=4)
    assert shown.user.unique().tolist() == ['u3', 'rare', 'u1'] and shown.attrs['guests'] == ['rare']
    theirs = shown[shown.user == 'rare']
    assert theirs.item.tolist() == served.guest(items=['i3', 'i5']).recommend(4).item.tolist()
    assert theirs['rank'].tolist() == [1, 2, 3, 4] and not {'i3', 'i5'} & set(theirs.item)
    assert shown[shown.user == 'u1'].item.tolist() == served.recommend('u1', n=4).item.tolist()
    with pytest.raises(ValueError, match='no user is called'):
        served.recommend('lost')


def test_new_items_join_from_their_texts(served, tmp_path):
    frame = pd.DataFrame({'item': ['n1', 'n2'], 'title': ['War', 'At the sea'], 'text': ['', '']})
    later = served.add_items(frame)
    assert later.shape == (30, 62) and served.shape == (30, 60)
    assert set(later.similar_items('n1', 8).title) == {'war'}
    places = later.recommend(n=62, filter_known=False).query("item == 'n1'").set_index('user')['rank']
    likes_war = served.vectors[0][served.user_ids.rows(places.index.tolist())[1], 3] > 0
    assert places[likes_war].mean() < 25 < 35 < places[~likes_war].mean()
    assert later.guest('war').recommend(11).item.isin(['n1']).any()
    old = later.recommend('reader 3', n=62)
    assert old[~old.item.isin(['n1', 'n2'])].item.tolist() == served.recommend('reader 3', n=62).item.tolist()
    back = load_recommender(later.save(tmp_path / 'ship'))
    assert back.recommend(n=5).equals(later.recommend(n=5))


@pytest.mark.parametrize('frame, sentence', [
    ({'item': ['b01']}, 'there already'), ({'item': ['n', 'n']}, 'repeat'), ({'title': ['n']}, "column 'item'"),
    ({'item': []}, 'no rows'),
])
def test_what_is_no_new_item_is_told(served, frame, sentence):
    with pytest.raises(ValueError, match=sentence):
        served.add_items(pd.DataFrame(frame))


def test_a_lost_whitening_is_found_again():
    """Profiles and their whitened vectors are enough to read a sentence; other vectors are not."""
    from browser.hostile import WordReader

    from promax_nb.recommend.build import recommender_of
    from promax_nb.retrieval.embed import encode, whiten

    rng = np.random.default_rng(0)
    words = 'sea fog crime war harbour train letter garden'.split()
    texts = [[' '.join(rng.choice(words, 3)) for _ in range(n)] for n in (30, 20)]
    reader = WordReader()
    raw = [encode(side, reader) for side in texts]
    numbers = [rng.normal(size=(n, 4)).astype(np.float32) for n in (30, 20)]
    ids = range(30), range(20)
    for shared in (True, False):
        vectors = whiten(*raw, dim=5, shared=shared)
        served = recommender_of(tuple(numbers), *ids, profiles=texts, vectors=vectors, encoder={'model': reader})
        assert np.allclose(served.placed(texts[0][:3]), vectors[0][:3], atol=1e-3)
        assert served.guest('crime by the sea').recommend(3)['rank'].tolist() == [1, 2, 3]
    other = recommender_of(tuple(numbers), *ids, profiles=texts, vectors=tuple(numbers), encoder={'model': reader})
    with pytest.raises(ValueError, match='whitening'):
        other.guest('crime by the sea')
