"""Lists of ours in other libraries, lists and vectors of others here, and the same numbers on both sides."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import unquote

import implicit.cpu.als
import implicit.evaluation
import ir_measures
import nbformat
import numpy as np
import outside
import pandas as pd
import pytest
import scipy.sparse as sp
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from implicit.evaluation import ranking_metrics_at_k

import promax_nb.all
from promax_nb.data.bookshop import toy_data
from promax_nb.models.evaluate import METRICS, evaluate, held_out, per_user
from promax_nb.models.exposure import coverage, gini, list_diversity, list_popularity
from promax_nb.models.inference import compare
from promax_nb.models.scorers import as_scorer
from promax_nb.recommend.build import recommender, recommender_of
from promax_nb.recommend.outside import (
    falling,
    from_trec,
    lists_scorer,
    read_lists,
    rows_by_id,
    to_interactions,
    to_lenskit,
    to_qrels,
    to_rectools,
    to_trec,
)
from promax_nb.recommend.trained import TrainedRecommender
from promax_nb.views import layout, maps
from promax_nb.views.maps import project_scene
from promax_nb.views.nodes import node_table
from promax_nb.views.scene import Scene

IN_OWN_ENVIRONMENT = ('rectools', 'lenskit', 'recbole')


@pytest.fixture(scope='module')
def asked():
    """What every library is asked about, and our numbers."""
    data, lists, other = outside.world()
    return SimpleNamespace(data=data, lists=lists, ours=outside.Ours(data, lists, other))


# ---- scores that fall


def test_equal_scores_fall_by_the_smallest_step():
    scores = np.float32([3, 3, 3, 1, 0, 0, 0, -2, -2])
    fell = falling(scores, np.arange(1, 10))
    assert (np.diff(fell) < 0).all() and fell.dtype == np.float32
    below = np.nextafter(np.float32(3), np.float32(0))
    assert fell[:4].tolist() == [3, below, np.nextafter(below, np.float32(0)), 1]
    assert fell[4] == 0 and fell[7] == -2 and np.abs(fell - scores).max() < 1e-6
    full_precision = np.finfo(np.float32).tiny
    assert (np.abs(fell[5:7]) >= full_precision).all(), 'no step is lost where tiny numbers are switched off'


@pytest.mark.parametrize('seed', range(5))
def test_falling_against_a_loop(seed):
    """The running minimum at once is the loop that takes one step below wherever it has to."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, 30)
    rank = np.concatenate([np.arange(1, n + 1) for n in lengths])
    scores = (rng.integers(-3, 3, len(rank)) * 10.0 ** rng.integers(-38, 30)).astype(np.float32)
    tiny, expected = np.finfo(np.float32).tiny, []
    for place, score in zip(rank, scores, strict=True):
        if place > 1 and not score < expected[-1]:
            score = np.nextafter(expected[-1], np.float32(-np.inf))
            score = -tiny if -tiny < score < 0 else np.float32(0) if 0 < score < tiny else score
        expected.append(score)
    assert falling(scores, rank).tolist() == [float(score) for score in expected]


def test_what_falls_already_keeps_its_value(asked):
    scores = np.sort(np.random.default_rng(0).normal(size=50).astype(np.float32))[::-1]
    assert np.array_equal(falling(scores, np.arange(1, 51)), scores)
    raw = asked.lists.groupby('user')['score'].apply(lambda s: (s.diff().dropna() < 0).all())
    table = to_rectools(asked.lists)
    fell = table.groupby('user_id')['score'].apply(lambda s: (s.diff().dropna() < 0).all())
    assert fell.all() and raw.sum() == 1, 'every list here but that of a single item has equal scores'


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match='2 scores are not finite'):
        falling([1.0, np.nan, np.inf], [1, 2, 3])
    with pytest.raises(ValueError, match='1 scores are not finite in single precision'):
        falling([1e300, 1.0], [1, 2])


# ---- the table of lists


def test_lists_of_anybody_are_read():
    theirs = pd.DataFrame({'user_id': [7.0, 8.0, 7.0, 7.0], 'item_id': [1, 1, 3, 2], 'score': [0.5, 1, 2, 0.5]})
    table = read_lists(theirs)
    assert table['user'].tolist() == ['7', '7', '7', '8'] and table['item'].tolist() == ['3', '1', '2', '1']
    assert table['rank'].tolist() == [1, 2, 3, 1]
    ranked = read_lists(theirs.drop(columns='score').assign(rank=[5, 0, 2, 9]))
    assert ranked['item'].tolist() == ['3', '1', '2', '1'] and ranked['score'].tolist() == [-1, -2, -3, -1]
    both = read_lists(theirs.assign(rank=[1, 1, 2, 3]))
    assert both['item'].tolist() == ['1', '3', '2', '1'], 'where there is a rank, it decides'
    assert len(to_trec(theirs.iloc[:0])) == 0 and list(to_lenskit(theirs.iloc[:0])) == list(to_rectools(theirs))


@pytest.mark.parametrize(
    'change, sentence',
    [
        (lambda t: t.rename(columns={'item': 'what'}), "no column 'item'"),
        (lambda t: t.drop(columns=['rank', 'score']), 'neither rank nor score'),
        (lambda t: t.assign(item='x'), "the list of user 'a' shows item 'x' twice"),
        (lambda t: t.assign(rank=[1, np.nan, 1]), '1 rows of the lists have no place'),
        (lambda t: t.assign(user=['a', None, 'b']), '1 rows without an id'),
    ],
)
def test_lists_that_are_none_are_refused(change, sentence):
    table = pd.DataFrame({'user': ['a', 'a', 'b'], 'item': ['x', 'y', 'x'], 'rank': [1, 2, 1], 'score': [2.0, 1, 1]})
    with pytest.raises(ValueError, match=sentence):
        to_rectools(change(table))


def test_interactions_are_the_split_with_times():
    data = toy_data(60, 80)
    table = to_interactions(data, 'valid')
    assert list(table) == ['user_id', 'item_id', 'weight', 'datetime'] and (table['weight'] == 1).all()
    pairs = set(zip(table['user_id'], table['item_id'], strict=True))
    events = data.events[data.events['split'] == 'valid']
    told = set(zip(data.users['user'][events['user']], data.items['item'][events['item']], strict=True))
    assert len(pairs) == data.valid.nnz and pairs <= told
    first = table.iloc[0]
    row = (data.users['user'] == first['user_id']).idxmax(), (data.items['item'] == first['item_id']).idxmax()
    time = events[(events['user'] == row[0]) & (events['item'] == row[1])]['time'].item()
    assert first['datetime'] == pd.Timestamp(time, unit='s')
    with pytest.raises(ValueError, match="split='tset' is unknown"):
        to_interactions(data, 'tset')


# ---- TREC


ODD_IDS = ['a b', '100%', '%20', 'tab\there', 'line\nbreak', 'Čapek', '蜂', '"quoted"', "it's", '#1', 'a/b?c=d&e']
ODD_IDS += ['\u200bx', 'é', 'a\u3000b', '\ufeffy']


def test_odd_ids_survive_a_run(tmp_path):
    table = pd.DataFrame({'user': ODD_IDS, 'item': ODD_IDS[::-1], 'rank': 1, 'score': 0.1})
    text = to_trec(table, run='my run')
    assert all(len(line.split()) == 6 for line in text.splitlines()) and len(text.splitlines()) == len(ODD_IDS)
    assert from_trec(text).equals(read_lists(table))
    path = to_trec(table, tmp_path / 'deep' / 'run.trec')
    assert from_trec(path).equals(read_lists(table)) and '蜂' in path.read_text(encoding='utf-8')
    back = list(ir_measures.read_trec_run(str(path)))
    read = [(unquote(one.query_id), unquote(one.doc_id)) for one in back]
    assert read == list(zip(ODD_IDS, ODD_IDS[::-1], strict=True))


def test_scores_survive_a_run(asked):
    assert from_trec(to_trec(asked.lists)).equals(read_lists(asked.lists))
    shuffled = to_trec(asked.lists).splitlines(keepends=True)
    np.random.default_rng(0).shuffle(shuffled)
    key = ['user', 'rank']
    again = from_trec(''.join(shuffled)).sort_values(key, ignore_index=True)
    assert again.equals(read_lists(asked.lists).sort_values(key, ignore_index=True)), 'the score alone holds the order'


def test_the_score_of_a_run_decides():
    text = 'u Q0 a 1 0.5 x\nu Q0 b 1 0.7 x\nu Q0 c 1 0.5 x\n'
    assert from_trec(text)['item'].tolist() == ['b', 'a', 'c']
    with pytest.raises(ValueError, match='line 2 is no line of a TREC run'):
        from_trec('u Q0 a 1 0.5 x\nu Q0 b c 1 0.5 x\n')


# ---- the same numbers


def test_ranx_agrees(asked, tmp_path):
    to_trec(asked.lists, tmp_path / 'run.trec')
    to_qrels(asked.data, path=tmp_path / 'qrels.trec')
    command = [sys.executable, outside.KEPT / 'in_ranx.py', tmp_path, json.dumps(outside.KS)]
    subprocess.run(command, check=True, env=os.environ | {'NUMBA_DISABLE_JIT': '1'})
    found = json.loads((tmp_path / 'said.json').read_text(encoding='utf-8'))
    said = {name: in_order({unquote(u): v for u, v in values.items()}, asked) for name, values in found.items()}
    assert outside.disagreements('ranx', {'per_user': said}, asked.ours) == []


def in_order(values: dict, asked) -> list:
    """Numbers of users in the order of ours."""
    return [values[name] for name in asked.ours.names]


def by_ir_measures(run: str, asked) -> dict:
    """metric -> numbers of users."""
    names = [f'{name}@{k}' for name in outside.SAME['ir-measures'] for k in outside.KS]
    measures = [ir_measures.parse_measure(name) for name in names]
    answers, places = list(ir_measures.read_trec_qrels(to_qrels(asked.data))), list(ir_measures.read_trec_run(run))
    found = {name: {} for name in names}
    for one in ir_measures.iter_calc(measures, answers, places):
        found[str(one.measure)][unquote(one.query_id)] = one.value
    return {name: in_order(values, asked) for name, values in found.items()}


def test_ir_measures_agrees(asked):
    said = by_ir_measures(to_trec(asked.lists), asked)
    assert outside.disagreements('ir-measures', {'per_user': said}, asked.ours) == []


def test_equal_scores_would_not_agree(asked):
    """What strictly falling scores are for: with the scores as they are, trec_eval orders equal ones by item id."""
    fell, raw = from_trec(to_trec(asked.lists)), asked.lists['score']
    text = to_trec(asked.lists).splitlines()
    for number, score in enumerate(raw):
        parts = text[number].split()
        text[number] = ' '.join([*parts[:4], f'{score:.9g}', parts[5]])
    said = by_ir_measures('\n'.join(text) + '\n', asked)
    assert len(fell) == len(text) and len(outside.disagreements('ir-measures', {'per_user': said}, asked.ours)) >= 4


class Listed:
    """Our lists as a model of implicit."""

    def __init__(self, lists):
        self.lists = lists.astype(np.int32)

    def recommend(self, users, user_items, N=10):
        return self.lists[users, :N], np.zeros((len(users), N), np.float32)


def test_implicit_agrees(asked):
    data, overall = asked.data, {}
    seen = sp.csr_matrix(held_out(data)[1])
    for k in outside.KS:
        found = ranking_metrics_at_k(Listed(asked.ours.everybody), seen, data.test, K=k, show_progress=False)
        overall |= {f'{name}@{k}': value for name, value in found.items()}
    assert outside.disagreements('implicit', {'per_user': {}, 'overall': overall}, asked.ours) == []


@pytest.mark.parametrize('library', IN_OWN_ENVIRONMENT)
def test_kept_numbers_agree(asked, library):
    """What RecTools, LensKit and RecBole said in environments of their own (`make test-outside`)."""
    kept = outside.read_kept(library)
    assert kept['fingerprint'] == outside.fingerprint(asked.data, asked.lists), 'other lists: make test-outside'
    assert kept['asked'] == outside.LIBRARIES[library] and kept['users'] == asked.ours.names
    assert outside.disagreements(library, kept, asked.ours) == []


def test_disagreement_is_seen(asked):
    """A number that is wrong in the ninth digit, and one that is missing."""
    for wrong in (2e-9, np.nan):
        kept = outside.read_kept('recbole')
        kept['per_user']['NDCG@5'][3] += wrong
        (sentence,) = outside.disagreements('recbole', kept, asked.ours)
        assert sentence.startswith("recbole NDCG@5") and repr(asked.ours.names[3]) in sentence


@pytest.mark.parametrize('library', ['rectools', 'lenskit'])
def test_lists_of_others_are_measured_here(asked, library):
    """Lists of their own models: our numbers are what they said themselves."""
    own = dict(outside.read_kept(library)['own'])
    places = [(user, item, place) for user, items in own.pop('lists').items() for place, item in enumerate(items, 1)]
    theirs = pd.DataFrame(places, columns=['user_id', 'item_id', 'rank'])
    truth, seen = held_out(asked.data, mask='train')
    table = per_user(lists_scorer(theirs, asked.data), truth, seen, (10,))
    (said,) = own.values()
    assert theirs['user_id'].nunique() == asked.data.n_users and (table['ndcg@10'] > 0).sum() > 20
    assert np.allclose(table['ndcg@10'], np.array(said, float), rtol=0, atol=1e-9)


# ---- lists and vectors of others


def test_lists_as_a_scorer_keep_their_order(asked):
    data = asked.data
    scorer = lists_scorer(asked.lists, data)
    scores = scorer.scores(np.arange(data.n_users)).numpy()
    first = asked.lists[asked.lists['rank'] == 1]
    best = data.items['item'][scores[: data.n_users - 1].argmax(1)].tolist()
    assert best == first['item'].tolist() and np.isinf(scores[-1]).all()
    strange = asked.lists.head(1).assign(item='Book/1, vol. 2')
    with pytest.raises(ValueError, match='no item is called .*Book/1, vol. 1'):
        lists_scorer(strange, data)
    with pytest.raises(ValueError, match='no user is called'):
        lists_scorer(asked.lists.assign(user='nobody').head(1), data)


def test_rows_come_into_our_order():
    table = np.arange(6).reshape(3, 2)
    assert rows_by_id(table, [10, 30, 20], ['20', '10']).tolist() == [[4, 5], [0, 1]]
    assert rows_by_id(table, ['a', 'b', 'c'], ['d', 'b'], missing=0).tolist() == [[0, 0], [2, 3]]
    with pytest.raises(ValueError, match=r"1 ids have no row \('d'\)"):
        rows_by_id(table, ['a', 'b', 'c'], ['d', 'b'])
    with pytest.raises(ValueError, match='2 different ids for 3 rows'):
        rows_by_id(table, ['a', 'b', 'a'], ['a'])


@pytest.fixture(scope='module')
def shop():
    """A bookshop, and models of implicit trained on it, whose items stand in another order."""
    data = toy_data(120, 80)
    order = np.random.default_rng(0).permutation(data.n_items)
    train = sp.csr_matrix(data.train[:, order])
    how = {'factors': 8, 'iterations': 15, 'num_threads': 1, 'random_state': 0}
    models = [AlternatingLeastSquares(**how), BayesianPersonalizedRanking(**how)]
    for model in models:
        model.fit(train, show_progress=False)
    return SimpleNamespace(data=data, order=order, train=train, models=models, ids=data.items['item'].to_numpy()[order])


@pytest.fixture(params=[0, 1], ids=['als', 'bpr'])
def theirs(shop, request):
    """A model of implicit, and its vectors in our order."""
    model = shop.models[request.param]
    pair = model.user_factors, rows_by_id(model.item_factors, shop.ids, shop.data.items['item'])
    return SimpleNamespace(model=model, pair=pair)


def test_vectors_of_implicit_are_evaluated(shop, theirs):
    """implicit's own numbers on its own model, and ours on its vectors."""
    data = shop.data
    truth, seen = held_out(data, mask='train')
    ours = evaluate(theirs.pair, truth, seen, (10,))
    test = sp.csr_matrix(data.test[:, shop.order])
    said = ranking_metrics_at_k(theirs.model, shop.train, test, K=10, show_progress=False)
    assert ours['ndcg@10'] == pytest.approx(said['ndcg'], abs=1e-9) and ours['ndcg@10'] > 0.01


def test_vectors_of_implicit_are_compared(shop, theirs):
    users, items = theirs.pair
    scores = as_scorer(lambda rows: users[rows] @ items.T, shop.data.shape)
    table = compare(theirs.pair, scores, shop.data, ks=(10,))
    assert (table['difference'].abs() < 1e-12).all() and (table['base'] > 0).all()
    popular = np.tile(shop.data.train.sum(0).A1, (shop.data.n_users, 1))
    assert 'difference' in compare(popular, theirs.pair, shop.data, ks=(10,))


def test_vectors_of_implicit_recommend(shop, theirs):
    """The lists of its own `recommend`, in people's ids; and its neighbours."""
    data, model = shop.data, theirs.model
    served = recommender_of(theirs.pair, data.users, data.items, known=data.train)
    user = data.users['user'][5]
    found, _ = model.recommend(5, shop.train[5], N=10, filter_already_liked_items=True)
    assert served.recommend(user, 10)['item'].tolist() == shop.ids[found].tolist()
    near, _ = model.similar_users(5, N=6)
    assert served.similar_users(user, 5)['user'].tolist() == data.users['user'][near[1:]].tolist()
    column = int(np.flatnonzero(shop.ids == data.items['item'][3])[0])
    alike, _ = model.similar_items(column, N=6)
    assert served.similar_items(data.items['item'][3], 5)['item'].tolist() == shop.ids[alike[1:]].tolist()
    lists = to_rectools(recommender(data, theirs.pair).recommend(n=5))
    assert len(lists) == 5 * data.n_users


def test_vectors_of_implicit_are_explained(shop, theirs):
    """Nobody's sum, so what goes along: the items of the history that the vectors say are nearest."""
    data = shop.data
    served = recommender_of(theirs.pair, data.users, data.items, known=data.train, train=data.train)
    user, item = data.users['user'][5], served.recommend(data.users['user'][5], 1)['item'][0]
    why = served.explain(user, item)
    named = why.parts['history']
    assert not why.exact and why.standings['after'].rank == 1
    assert set(named['id']) <= set(data.items['item'][data.train[[5]].indices]) and len(named) > 1
    _, units = (table / np.linalg.norm(table, axis=1, keepdims=True) for table in theirs.pair)
    rows = data.items.set_index('item').index.get_indexer([item, *named['id']])
    assert list(units[rows[1:]] @ units[rows[0]]) == sorted(units[rows[1:]] @ units[rows[0]], reverse=True)
    assert 'goes along with' in ' '.join(why.sentences())


def test_vectors_of_implicit_are_mapped(shop, theirs, monkeypatch):
    """A scene of arrays, without a fit of ours. UMAP, slow to start and tested elsewhere, is two directions here."""
    for room in (maps, layout):
        monkeypatch.setattr(room, 'layout_alone', lambda vectors, *_, **__: np.asarray(vectors)[:, :2])
    data, rng = shop.data, np.random.default_rng(0)
    profiles = rng.normal(size=(data.n_users, 4)), rng.normal(size=(data.n_items, 4))
    turn = np.linalg.qr(rng.normal(size=(theirs.pair[0].shape[1],) * 2))[0]
    turned = tuple(table @ turn for table in theirs.pair)
    scene = Scene(data, vectors=profiles, before=[theirs.pair], after=[turned])
    places = project_scene(scene)
    assert {'base', 'reshaped'} <= set(places.coords) and places.n_users == data.n_users
    nodes = node_table(scene)
    assert len(nodes) == data.n_users + data.n_items


# ---- the page "Coming from implicit, RecTools or LensKit"


def tables() -> list:
    """Rows of the two tables of the page, each a dict of column -> cell."""
    book = nbformat.read(outside.ROOT / 'nbs' / 'howto' / 'other_libraries.ipynb', 4)
    text = '\n\n'.join(cell.source for cell in book.cells if cell.cell_type == 'markdown')
    found = []
    for block in re.findall(r'(?:^\|.*\|$\n?)+', text, re.M):
        head, _, *rows = ([cell.strip() for cell in line.split('|')[1:-1]] for line in block.strip().split('\n'))
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def known_calls(library: str) -> dict:
    """name -> names of arguments, as a library or our house has them."""
    if library in ('RecTools', 'LensKit'):
        kept = outside.read_kept(library.lower())['calls']
        return {called(name): names for name, names in kept.items()}
    homes = {
        'here': (promax_nb.all, TrainedRecommender),
        'implicit': (implicit.evaluation, implicit.cpu.als.AlternatingLeastSquares),
    }
    found = {}
    for home in homes[library]:
        for name, value in vars(home).items() if inspect.ismodule(home) else inspect.getmembers(home):
            if inspect.isroutine(value) and not name.startswith('_'):
                found[name] = list(inspect.signature(value).parameters)
    return found


def called(name: str) -> str:
    """A call without the object it is asked of; LensKit has two `recommend`."""
    return name if name == 'batch.recommend' else name.split('.')[-1]


def calls_in(cell: str) -> list:
    """(name, number of positional arguments, names of others) of every call in code letters."""
    found = []
    for piece in re.findall('`([^`]+)`', cell):
        tree = ast.parse(piece, mode='eval').body
        if isinstance(tree, ast.Call):
            name = called(ast.unparse(tree.func))
            found.append((name, len(tree.args), [word.arg for word in tree.keywords]))
    return found


def wrong_calls(library: str, cell: str) -> list:
    """Calls that the library has not, or not with these arguments."""
    wrong, known = [], known_calls(library)
    for name, positional, words in calls_in(cell):
        names = [word for word in known.get(name, ()) if word != 'self']
        if name in known and (positional <= len(names) and set(words) <= set(names[positional:])):
            continue
        wrong.append((library, name, words, known.get(name)))
    return wrong


@pytest.mark.parametrize('library', ['here', 'implicit', 'RecTools', 'LensKit'])
def test_the_page_names_calls_that_are_there(library):
    rows = tables()[0]
    wrong = [problem for row in rows for problem in wrong_calls(library, row[library])]
    asked = {name for row in rows for name, *_ in calls_in(row[library])}
    assert not wrong and len(asked) >= 6, wrong


def test_a_call_that_is_not_there_is_found():
    for cell in ('`recomend(users)`', '`recommend(users, m=10)`', '`recommend(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)`'):
        assert wrong_calls('here', cell) and wrong_calls('LensKit', cell) and wrong_calls('implicit', cell)


OURS_OVERALL = {  # rows of the page that are no column of `per_user`
    'novelty': outside.SAME['rectools']['MeanInvUserFreq'],
    'list_popularity': outside.SAME['rectools']['AvgRecPopularity'],
    'list_diversity': lambda ours, k: list_diversity(ours.lists[:, :k], outside.item_vectors(ours.data)),
    'coverage': lambda ours, k: coverage(ours.counts(k)),
    'gini': lambda ours, k: gini(ours.counts(k)),
    'rank_biased_overlap': outside.SAME['lenskit']['rank_biased_overlap'],
}
SPELLED = {'RecTools': 'rectools', 'LensKit': 'lenskit', 'RecBole': 'recbole'}


def test_the_page_tells_equal_from_different(asked):
    """Every metric that was measured is in the table, in the row of ours, and marked where it is another number."""
    seen = {}
    for row in tables()[1]:
        ours = row.pop('here').strip('`')
        for head, cell in row.items():
            library = SPELLED.get(head.split()[0], head.split()[0])
            for name, mark in re.findall('`([^`]+)`( ≠)?', cell):
                seen[library, name] = ours, bool(mark)
    measured = {(library, name) for library, metrics in outside.SAME.items() for name in metrics}
    assert set(seen) - measured == {('lenskit', 'NDCG')} and not measured - set(seen)
    for (library, name), (ours, differs) in seen.items():
        assert differs != is_ours(library, name, ours, asked.ours), (library, name)


def is_ours(library, name, ours, numbers) -> bool:
    """Is a metric of a library ours without a conversion, for users who have a list?"""
    if library == 'lenskit' and name == 'NDCG':
        theirs = np.array(outside.read_kept('lenskit')['per_user']['NDCG@10'], float)
    else:
        theirs = outside.SAME[library][name](numbers, 10)
    if library == 'recbole' and ours in OURS_OF_FULL:
        mine = OURS_OF_FULL[ours](numbers, 10)
    else:
        mine = numbers.value(ours, 10) if ours in METRICS else OURS_OVERALL[ours](numbers, 10)
    mine = np.mean(mine) if np.ndim(theirs) == 0 else mine
    both = np.isfinite(theirs) & (numbers.has_list if np.ndim(theirs) else True)
    return bool(np.allclose(np.where(both, theirs, 0), np.where(both, mine, 0), rtol=0, atol=1e-9))


OURS_OF_FULL = {  # RecBole was given the lists that are full
    'list_popularity': lambda ours, k: list_popularity(ours.everybody[ours.full, :k], ours.data.train),
    'coverage': lambda ours, k: coverage(ours.counts(k, ours.full)),
    'gini': lambda ours, k: gini(ours.counts(k, ours.full)),
}
