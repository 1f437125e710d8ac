"""The widgets, driven from Python: set traits, press buttons, read tables and HTML.

Scenes are made of arrays, so nothing is trained and no model is loaded.
"""

import dataclasses
import re
from html.parser import HTMLParser

import ipywidgets
import numpy as np
import pandas as pd
import pytest

from promax_nb.data.bookshop import toy_data
from promax_nb.data.words import content_words
from promax_nb.models.evaluate import held_out, topk
from promax_nb.models.losses import teacher
from promax_nb.retrieval.augment import augment
from promax_nb.views.browser import Editor, ProfileBrowser
from promax_nb.views.candidates import CandidateExplorer, why_none
from promax_nb.views.curves import Chart, curve_points
from promax_nb.views.distributions import distributions
from promax_nb.views.edits import EDITABLE, Edits, profile_change, write_table
from promax_nb.views.evidence import Histories, claims_of
from promax_nb.views.explorer import Explorer, Picked
from promax_nb.views.finders import Finder, Neighbours, NodeList, UserFinder
from promax_nb.views.html import Safe, grid, marked, tag
from promax_nb.views.lookup import Lookup, Nodes
from promax_nb.views.page import save_html
from promax_nb.views.pairs import PairBrowser
from promax_nb.views.parts import Part, guarded, sentence
from promax_nb.views.plain import plain_style
from promax_nb.views.scene import Scene
from promax_nb.views.texts import harmless
from promax_nb.views.whatif import DistributionExplorer, Sliders

HOSTILE = [
    '<script>alert(1)</script>',
    '<img src=x onerror=alert(2)>',
    '"><img src=x onerror=alert(3)>',
    "'><svg onload=alert(4)>",
    '</script><script>alert(5)</script>',
    '</textarea><script>alert(6)</script>',
    '</option></select><img src=x onerror=alert(7)>',
    '</td></table><iframe src="javascript:alert(8)">',
    '<a href="javascript:alert(9)">x</a>',
    '<style>*{display:none}</style>',
    '<b>bold</b>',
    '<br>',
    '&lt;script&gt;alert(10)&lt;/script&gt;',
    '" onmouseover="alert(11)',
    "' onfocus='alert(12)' autofocus='",
    '<!-- comment',
    ']]>',
    '\u202egnp.exe\u202c',
    'a\x00b\x1b[31m',
    '\u200b\u2060',
    '$\\href{javascript:alert(13)}{x}$',
    '%{x}<extra></extra>',
    '{{7*7}} ${7*7}',
    'שלום עולם',
    '👩\u200d👩\u200d👧',
    '<' * 50,
    '</summary></details><script>alert(14)</script>',
    '__proto__',
    '\\',
    '<x' + 'y' * 1_000_000 + '>',
]
ALLOWED = {
    'div',
    'h3',
    'h4',
    'p',
    'b',
    'small',
    'span',
    'mark',
    'table',
    'caption',
    'thead',
    'tbody',
    'tr',
    'th',
    'td',
    'details',
    'summary',
    'pre',
    'ul',
    'ol',
    'li',
    'bdi',
    'i',
    'svg',
    'line',
    'blockquote',
}


class Encoder:
    """Words to places in a vector: fast, and the same text is always the same vector."""

    name = 'words'

    def __init__(self, width=24):
        self.width, self.asked = width, []

    def encode(self, texts, **kw):
        self.asked += texts
        out = np.zeros((len(texts), self.width), np.float32)
        for r, t in enumerate(texts):
            for w in content_words(t, 100_000):
                out[r, sum(w.encode('utf-8', 'replace')) % self.width] += 1
        return out + 0.01 * np.cos(np.arange(self.width))


@pytest.fixture(scope='module')
def data():
    return toy_data(60, 40)


def build(data, profiles=None, titles=None, encoder=None, **parts):
    """A scene with every part, without training."""
    rng, encoder = np.random.default_rng(0), encoder or Encoder()
    if titles is not None:
        data = dataclasses.replace(data, items=data.items.assign(title=titles, text=titles, author=titles))
    m, n = data.shape
    texts = profiles or [f'Enjoys {t}' for t in [*np.resize(data.items.text.to_numpy(object), m), *data.items.text]]
    raw = encoder.encode(texts[:m]), encoder.encode(texts[m:])
    users, items = (
        pd.DataFrame(
            {
                'id': range(len(t)),
                'profile': t,
                'writer': 'template',
                'status': 'ok',
                'prompt': [f'about {x[:100]}' for x in t],
            }
        )
        for t in (texts[:m], texts[m:])
    )
    users['sources'] = [data.train[[u]].indices.tolist() for u in range(m)]
    scene = Scene(data, users, items, raw=raw, settings={'width': 8, 'encoder': encoder})
    vectors = scene.in_basis(True)[:2]

    def fit():
        return rng.normal(size=(m, 8)), rng.normal(size=(n, 8))

    added, why = augment(data, *vectors)
    return dataclasses.replace(
        scene, **{'vectors': vectors, 'before': fit(), 'after': fit(), 'added': added, 'provenance': why} | parts
    )


@pytest.fixture(scope='module')
def scene(data):
    return build(data)


@pytest.fixture
def browser(scene):
    return ProfileBrowser(scene)


class Reader(HTMLParser):
    """Tags and attributes of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ''
        self.feed(text)
        self.close()

    def handle_starttag(self, name, attributes):
        self.found.append((name, dict(attributes)))

    def handle_comment(self, data):
        self.found.append(('comment', {}))

    def handle_decl(self, decl):
        self.found.append(('declaration', {}))

    def handle_data(self, data):
        self.text += data


# attributes that neither act nor load
PASSIVE = {'style', 'role', 'scope', 'class', 'title', 'data-item', 'aria-hidden', 'aria-label', 'viewbox'}
PASSIVE |= {'preserveaspectratio', 'vector-effect', 'x1', 'x2', 'y1', 'y2'}


def titles(html):
    """What stands in the titles of a piece of HTML, read back."""
    return [attributes['title'] for _, attributes in Reader(html).found if 'title' in attributes]


def problems(html):
    """Elements and attributes that only data could have brought in."""
    html = html.replace(plain_style(), '')  # the one look of our own
    return [(n, a) for n, a in Reader(html).found if n not in ALLOWED or not set(a) <= PASSIVE]


def message(widget):
    return Reader(widget.alert.value).text


# --- small pieces


def test_everything_is_escaped_unless_tag_made_it():
    assert tag('p', '<i>', Safe('<b>x</b>'), None, ['&', tag('b', 'y')]) == '<p>&lt;i&gt;<b>x</b>&amp;<b>y</b></p>'
    assert not isinstance(tag('p', 'a').upper(), Safe)  # a changed piece is an ordinary string again, and gets escaped
    for text in HOSTILE:
        for title, told in ((None, ''), (text, harmless(text, 400))):
            shown = tag('p', text, title=title) + grid([[text]], [text], text)
            assert not problems(shown) and titles(shown) == [told]


def test_an_object_cannot_speak_html():
    """Some libraries take what an object's `__html__` says as HTML; here it is a text like any other."""

    class Sly(str):
        def __html__(self):
            return '<script>alert(1)</script>'

        __ft__ = __html__

    shown = tag('p', Sly('<i>'), Sly('<b>'), title=Sly('<u>')) + grid([[Sly('<s>')]], [Sly('<q>')], Sly('<a>'))
    assert not problems(shown) and titles(shown) == ['<u>'] and 'script' not in shown


def test_the_detector_detects():
    assert (
        problems('<p>x</p><img src=x onerror=alert(1)>')
        and problems('<p onclick="x">')
        and problems('<!-- x -->')
        and problems('<table style="x"><script>')
    )


def test_marks_support_and_nothing_else():
    words = content_words('The Quiet Harbour: a tale of HARBOUR life, 1950')
    assert words == {'quiet', 'harbour', 'tale', 'life', '1950'}
    shown = marked('A harbour & <Quiet> lives; enjoys HARBOUR', words)
    assert re.findall(r'<mark[^>]*>([^<]*)</mark>', shown) == ['harbour', 'Quiet', 'HARBOUR'] and '&amp; &lt;' in shown
    assert content_words(None) == content_words(float('nan')) == content_words('') == set()
    assert Reader(marked('a harbour & <Quiet>', words)).text == 'a harbour & <Quiet>'  # nothing is lost


@pytest.mark.parametrize(
    'error, said',
    [
        (ValueError('a sentence.'), 'a sentence.'),
        (KeyError('no such id.'), 'no such id.'),
        (ZeroDivisionError('by zero'), 'ZeroDivisionError: by zero'),
        (ModuleNotFoundError('x', name='umap'), 'the package umap is missing'),
        (RuntimeError(), 'RuntimeError: no message'),
    ],
)
def test_sentences(error, said):
    assert sentence(error).startswith(said)


# --- errors and links


class Toy(Explorer):
    picked = Picked()

    @guarded
    def outer(self):
        self.inner()
        self.after = True

    @guarded
    def inner(self):
        raise RuntimeError('<b>planted</b>')

    @guarded
    def fine(self):
        pass


def test_a_broken_callback_is_shown_and_kept(data):
    toy = Toy(data)
    toy.inner()
    assert (
        message(toy) == '⚠ RuntimeError: <b>planted</b>'
        and isinstance(toy.error, RuntimeError)
        and Reader(toy.alert.value).found[0][1]['role'] == 'alert'
    )
    toy.fine()
    assert toy.error is None and message(toy) == ''
    toy.outer()  # an inner error is not wiped by the outer callback's success
    assert toy.after and 'planted' in message(toy)


CONTROLS = [
    (ProfileBrowser, 'go'),
    (ProfileBrowser, 'open_user'),
    (ProfileBrowser, 'apply'),
    (ProfileBrowser, 'undo_button'),
    (ProfileBrowser, 'redo_button'),
    (ProfileBrowser, 'keep'),
    (ProfileBrowser, 'found', 'index', 3),
    (ProfileBrowser, 'kind', 'value', 'item'),
    (ProfileBrowser, 'query', 'value', 'x'),
    (ProfileBrowser, 'editor', 'value', 'x'),
    (DistributionExplorer, 'tau', 'value', 1.0),
    (DistributionExplorer, 'found', 'index', 3),
    (DistributionExplorer, 'basis', 'value', 'separate'),
    (DistributionExplorer, 'query', 'value', '#2'),
    (CandidateExplorer, 'found', 'index', 3),
]


@pytest.mark.parametrize('make, control, to', [(c[0], c[1], c[2:]) for c in CONTROLS])
def test_every_control_shows_a_planted_error(scene, monkeypatch, make, control, to):
    widget = make(scene)

    def broken(*args, **kw):
        raise RuntimeError('planted')

    monkeypatch.setattr(widget, 'draw', broken)
    monkeypatch.setattr(Nodes, 'table', broken)
    if make is ProfileBrowser:
        monkeypatch.setattr(widget.finder, 'search', broken)
        monkeypatch.setattr(widget.edits, 'text', broken)
        for name in ('edit', 'undo', 'redo'):
            monkeypatch.setattr(widget.editing, name, broken)
    control = getattr(widget, control)
    control.click() if not to else setattr(control, *to)
    assert widget.error is not None and message(widget).startswith('⚠')


def test_link_goes_both_ways_without_loops(scene):
    browser, dist, cand = ProfileBrowser(scene), DistributionExplorer(scene), CandidateExplorer(scene)
    assert browser.link(dist, cand) is browser and browser.link(dist) is browser  # twice is once
    drawn = []
    for w in (browser, dist, cand):
        w.observe(lambda change, w=w: drawn.append(type(w).__name__), w.follows)
    browser.show('user', 9)
    assert dist.user == cand.user == 9 and sorted(drawn) == [
        'CandidateExplorer',
        'DistributionExplorer',
        'ProfileBrowser',
    ]
    cand.user = np.int64(4)
    assert browser.picked == ('user', 4) and dist.user == 4 and len(drawn) == 6
    browser.show('item', 3)
    assert dist.user == cand.user == 4
    browser.unlink()
    browser.show('user', 0)
    assert dist.user == cand.user == 4 and browser.picked == ('user', 0)


def test_link_refuses_what_does_not_belong_together(scene, browser):
    other = ProfileBrowser(Scene(toy_data(60, 40, seed=1)))
    for wrong, said in ((other, 'different data'), (browser, 'to itself'), ('x', 'a str cannot be linked')):
        with pytest.raises(ValueError, match=said):
            browser.link(wrong)


def test_an_error_behind_a_link_is_shown_where_it_began(scene, monkeypatch):
    browser, dist = ProfileBrowser(scene), DistributionExplorer(scene)
    browser.link(dist)
    monkeypatch.setattr(dist, 'visit', lambda *a: 1 / 0)
    browser.show('user', 7)
    assert 'ZeroDivisionError' in message(browser)
    browser.notice.fail(ValueError('an earlier error'))
    browser._repr_mimebundle_()
    assert 'an earlier error' in message(browser)  # being shown, or passing on a pick, takes no error away
    monkeypatch.undo()
    browser.link(dist)
    assert 'an earlier error' in message(browser)


# --- ProfileBrowser


def test_find_by_id_title_and_row(browser, scene):
    assert browser.search('R0007').row.tolist()[0] == 7 and browser.picked == ('user', 7)  # an exact id is opened
    assert browser.search('#11', 'item').row.tolist() == [11] and browser.picked == ('item', 11)
    title = scene.data.items.title[5]
    found = browser.search(title.lower()[:-1], 'item')
    assert 5 in found.row.tolist() and set(found.how) == {'title'} and browser.results.equals(found)
    assert found.name[0] in browser.found.options[0][0]
    browser.found.value = ('item', 5)
    assert browser.picked == ('item', 5) and browser.selected.id.tolist() == [scene.data.items.item[5]]


def test_meaning_ranks_by_cosine_in_the_original_space(browser, scene):
    q = Encoder().encode(['inheritance and a desert caravan'])[0]
    x = scene.raw[1]
    cosine = x @ q / np.linalg.norm(x, axis=1) / np.linalg.norm(q)
    found = browser.search('inheritance and a desert caravan', 'item', by='meaning')
    assert found.row.tolist() == np.argsort(-cosine, kind='stable').tolist() and np.allclose(
        found.score, np.sort(cosine)[::-1], atol=1e-5
    )
    auto = browser.search('zzz qqq xyzzy', 'user')
    assert set(auto.how) == {'meaning'} and 'closest in meaning' in browser.status.value


@pytest.mark.parametrize(
    'parts, said',
    [
        ({'raw': None}, 'before whitening are not in this scene'),
        ({'settings': {'width': 8, 'encoder': Encoder(7)}}, '24 wide'),
    ],
)
def test_meaning_falls_back_to_words_and_says_so(scene, parts, said):
    browser = ProfileBrowser(dataclasses.replace(scene, **parts))
    found = browser.search('inheritance caravan', 'item', by='meaning')
    both = [i for i, t in enumerate(scene.items.profile) if 'inheritance' in t and 'caravan' in t]
    assert set(found.how) == {'words'} and sorted(found.row[: len(both)]) == both and said in browser.status.value


def test_another_kind_searches_again_but_loads_no_encoder(browser, monkeypatch):
    import promax_nb.retrieval.embed

    monkeypatch.setattr(promax_nb.retrieval.embed, 'encode', lambda *a, **k: pytest.fail('the encoder was asked'))
    browser.query.value = 'r0003'
    browser.kind.value = 'item'
    assert (
        browser.results.row.tolist() == list(range(40))
        and set(browser.results.kind) == {'item'}
        and 'the first ones are listed' in browser.status.value
    )
    assert browser.picked == ('user', 3) and browser.found.value is None and browser.error is None
    browser.kind.value = 'user'
    assert browser.results.row.tolist() == [3] and browser.found.value == ('user', 3)
    browser.by.value, browser.kind.value = 'words', 'item'
    assert len(browser.results) == 0


def test_searches_that_cannot_be_done(browser):
    for text in ('', '  \n'):
        with pytest.raises(ValueError, match='nothing to look for'):
            browser.search(text)
    with pytest.raises(ValueError, match='rows go from #0 to #59'):
        browser.search('#60')
    with pytest.raises(ValueError, match="use 'auto', 'id'"):
        browser.search('x', by='smell')
    with pytest.raises(ValueError, match="use 'user' or 'item'"):
        browser.search('x', 'author')
    browser.go.click()
    assert 'nothing to look for' in message(browser)
    browser.by.value, browser.query.value = 'id', 'nobody at all'
    assert (
        len(browser.results) == 0
        and 'No user fits' in browser.status.value
        and browser.error is None
        and browser.found.options == ()
    )
    browser.query.value = 'r0003'
    assert browser.picked == ('user', 3)


@pytest.mark.parametrize(
    'kind, row, said',
    [
        ('user', 60, 'from 0 to 59'),
        ('item', -1, 'from 0 to 39'),
        ('user', True, 'neither an id nor a row'),
        ('user', 1.5, 'neither an id nor a row'),
        ('x', 1, 'kind='),
    ],
)
def test_nodes_that_do_not_exist(browser, kind, row, said):
    browser.show('user', 2)
    for act in (lambda: browser.show(kind, row), lambda: setattr(browser, 'picked', (kind, row))):
        with pytest.raises(ValueError, match=said):
            act()
    with pytest.raises(ValueError, match='a pair'):
        browser.picked = 'user'
    assert browser.picked == ('user', 2)


def test_card_of_a_user(browser, scene, data):
    browser.show('user', 4)
    past = data.events.query("split == 'train' and user == 4")
    shown = browser.history
    assert (
        sorted(shown['item']) == sorted(past['item'])
        and shown.title.tolist() == data.items.title[shown['item']].tolist()
    )
    assert shown.date.tolist() == sorted(shown.date, reverse=True) and set(shown.told) <= {True, False}
    text = Reader(browser.card.value).text
    for i in past['item']:
        assert data.items.title[i] in text
    held = set(data.test[[4]].indices) | set(data.valid[[4]].indices)
    assert not held & set(shown['item'])  # never what the writer was not allowed to see
    assert scene.users.profile[4] in text and scene.users.prompt[4] in text and 'template' in text
    claims = claims_of(scene, 'user', 4, Histories(data).of('user', 4))
    chips = re.findall(r'<details class="pm-chip pm-(\w+)"', browser.card.value)
    assert sorted(chips) == sorted(claim.state for claim in claims) and 'supported' in chips


def test_card_of_an_item(browser, data):
    browser.show('item', 6)
    text, past = Reader(browser.card.value).text, browser.history
    assert (
        data.items.title[6] in text
        and data.items.author[6] in text
        and all(data.users.user[u] in text for u in past.user)
    )
    assert sorted(past.user) == sorted(data.events.query("split == 'train' and item == 6").user)


def test_neighbours_are_cosines_of_the_original_space(browser, scene):
    browser.show('item', 6)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in scene.raw]
    for kind in (0, 1):
        cosine = unit[kind] @ unit[1][6]
        if kind:
            cosine[6] = -9
        t = browser.neighbours.query('kind == @k', local_dict={'k': ('user', 'item')[kind]})
        assert np.allclose(t.cosine, np.sort(cosine)[::-1][:10], atol=1e-6) and len(t) == 10
    browser.near_users.index = 2
    target = browser.near_users.value
    browser.open_user.click()
    assert browser.picked == target and browser.error is None


def test_edit_moves_one_vector_and_nothing_else(browser, scene):
    browser.show('user', 5)
    browser.editor.value = 'Enjoys lost robots in outer space.'
    assert browser.drafts == {('user', 5): 'Enjoys lost robots in outer space.'}
    browser.apply.click()
    assert browser.error is None and browser.drafts == {}
    vector = Encoder().encode(['Enjoys lost robots in outer space.'])[0]
    live, to = browser.live, scene.in_basis(True)[2]
    assert np.allclose(live.raw[0][5], vector) and np.allclose(live.vectors[0][5], to(vector[None])[0], atol=1e-4)
    for a, b in ((live.raw[0], scene.raw[0]), (live.vectors[0], scene.vectors[0])):
        assert np.array_equal(np.delete(a, 5, 0), np.delete(b, 5, 0))
    old = scene.raw[0][5]
    e = browser.edited.iloc[0]
    assert (e['kind'], e['row'], e['before'], e['after']) == (
        'user',
        5,
        scene.users.profile[5],
        'Enjoys lost robots in outer space.',
    )
    assert np.isclose(e['cosine'], old @ vector / np.linalg.norm(old) / np.linalg.norm(vector)) and not e['undone']
    p, w = teacher(live.vectors[0][[5]], live.vectors[1])
    assert np.allclose(browser.change.sort_values('item').p_after, p[0], atol=1e-6) and np.isclose(
        browser.change.attrs['after']['weight'], w[0]
    )
    assert (
        'Cosine between the old and the new' in browser.changed.value
        and 'edited' in browser.card.value
        and '(new)' in browser.changed.value
    )
    assert (browser.change.p_after - browser.change.p_before).abs().is_monotonic_decreasing
    other = ProfileBrowser(live)
    other.show('user', 5)
    assert browser.neighbours.equals(other.neighbours)


def test_edit_of_an_item_shows_its_users(browser, scene):
    browser.edit('item', 3, 'Enjoys lost robots in outer space.')
    assert browser.picked == ('item', 3)
    u = browser.change.user.iloc[0]
    for s, column in ((scene, 'p_before'), (browser.live, 'p_after')):
        assert np.isclose(browser.change[column].iloc[0], distributions(s, int(u)).p[3], atol=1e-6)
    assert set(scene.data.train[:, [3]].nonzero()[0]) <= set(browser.change.user)


def test_undo_and_redo(browser, scene):
    before = scene.users.profile[5]
    browser.edit('user', 5, 'first try about robots')
    browser.edit('user', 5, 'second try about gardens')
    browser.edit('item', 2, 'third about whales')
    browser.undo_button.click()
    assert browser.live.items.profile[2] == scene.items.profile[2] and browser.picked == ('item', 2)
    browser.undo()
    assert (
        browser.live.users.profile[5] == 'first try about robots' and browser.editor.value == 'first try about robots'
    )
    browser.undo()
    assert browser.live.users.profile[5] == before and np.array_equal(browser.live.raw[0], scene.raw[0])
    assert np.allclose(browser.live.vectors[0], scene.vectors[0], atol=1e-6)
    assert (
        browser.edited.undone.all() and browser.edited.after.tolist()[0] == 'first try about robots'
    )  # nothing is lost
    browser.undo_button.click()
    assert 'no edit to undo' in message(browser)
    browser.redo_button.click()
    assert (
        browser.live.users.profile[5] == 'first try about robots'
        and browser.error is None
        and browser.edited.undone.tolist() == [True, True, True, False]
    )
    browser.redo()
    browser.redo()
    assert browser.live.items.profile[2] == 'third about whales'
    with pytest.raises(ValueError, match='nothing to redo'):
        browser.redo()


def test_an_undo_or_redo_that_fails_loses_nothing(scene, monkeypatch):
    from promax_nb.views import edits as edits_room

    browser = ProfileBrowser(scene)
    browser.edit('user', 5, 'lost robots')
    with monkeypatch.context() as broken:
        broken.setattr(edits_room, 'profile_change', lambda *args: 1 / 0)
        browser.undo_button.click()
    assert 'ZeroDivisionError' in message(browser)
    assert browser.live.users.profile[5] == 'lost robots' and browser.edited.undone.tolist() == [False]
    browser.undo()
    with monkeypatch.context() as broken:
        broken.setattr(edits_room, 'profile_change', lambda *args: 1 / 0)
        browser.redo_button.click()
    assert browser.live.users.profile[5] == scene.users.profile[5] and len(browser.edited) == 1
    browser.redo()
    assert browser.live.users.profile[5] == 'lost robots' and browser.edited.undone.tolist() == [True, False]


def test_a_first_edit_that_fails_leaves_the_vectors_as_they_were(scene, monkeypatch):
    """The first edit may go over to another whitening; not before it has come through."""
    from promax_nb.views import edits as edits_room

    odd = dataclasses.replace(scene, vectors=tuple(x[:, ::-1].copy() for x in scene.vectors))  # not what in_basis gives
    browser = ProfileBrowser(odd)
    monkeypatch.setattr(edits_room, 'profile_change', lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        browser.edit('user', 0, 'something about robots')
    assert browser.live.vectors is odd.vectors and browser.edited.empty


def test_drafts_wait_for_their_node(browser, scene):
    browser.show('user', 1)
    browser.editor.value = 'half a sent'
    browser.show('item', 1)
    assert browser.editor.value == harmless(scene.items.profile[1])
    browser.editor.value = 'another half'
    browser.search('r0002')
    assert browser.editor.value == harmless(scene.users.profile[2])
    browser.show('user', 1)
    assert browser.editor.value == 'half a sent'
    browser.edit('user', 1, 'an edit from code')
    assert browser.editor.value == 'half a sent'  # the draft outlives an edit and its undo
    browser.undo()
    assert browser.editor.value == 'half a sent' and browser.drafts == {
        ('user', 1): 'half a sent',
        ('item', 1): 'another half',
    }
    browser.editor.value = harmless(scene.users.profile[1])  # typed back to what it was
    assert ('user', 1) not in browser.drafts


def test_a_failed_edit_changes_nothing_and_keeps_the_text(scene, monkeypatch):
    broken = Encoder()
    browser = ProfileBrowser(dataclasses.replace(scene, settings={'width': 8, 'encoder': broken}))
    monkeypatch.setattr(broken, 'encode', lambda *a, **k: 1 / 0)
    browser.editor.value = 'typed with care'
    browser.apply.click()
    assert (
        'ZeroDivisionError' in message(browser)
        and browser.editor.value == 'typed with care'
        and browser.drafts == {('user', 0): 'typed with care'}
    )
    assert browser.live is browser.scene
    assert browser.edited.empty and browser.status.value.count('Encoding') == 0


@pytest.mark.parametrize(
    'text, said', [('', 'is empty'), (' \n', 'is empty'), (None, 'is empty'), ('x' * (EDITABLE + 1), 'use at most')]
)
def test_texts_that_cannot_be_a_profile(browser, text, said):
    with pytest.raises(ValueError, match=said):
        browser.edit('user', 0, text)
    with pytest.raises(ValueError, match='as it was'):
        browser.edit('user', 0, browser.live.users.profile[0])
    browser.apply.click()
    assert 'as it was' in message(browser)


def test_edit_with_few_parts(scene, data):
    browser = ProfileBrowser(dataclasses.replace(scene, raw=None))
    browser.edit('user', 0, 'something else')
    assert (
        browser.live.users.profile[0] == 'something else'
        and np.isnan(browser.edited.cosine[0])
        and 'not: the vectors' in browser.status.value
    )
    assert 'whitened space' in browser.space.value and len(browser.neighbours) == 20
    browser = ProfileBrowser(dataclasses.replace(scene, vectors=None))
    browser.edit('user', 0, 'something else')
    assert (
        browser.change is None
        and 'no distribution to compare' in browser.changed.value
        and browser.edited.cosine[0] < 1
    )
    browser = ProfileBrowser(data)  # interactions only
    assert (
        'no profiles of users' in browser.card.value
        and browser.editor.disabled
        and browser.neighbours.empty
        and 'no profile vectors' in browser.space.value
    )
    with pytest.raises(ValueError, match='none to edit'):
        browser.edit('user', 0, 'x')
    assert set(browser.search('ledger', 'item').how) <= {'title', 'words'} and len(browser.selected) == 1


def test_vectors_of_another_encoder_or_another_basis(scene):
    browser = ProfileBrowser(dataclasses.replace(scene, raw=tuple(x[:, ::-1].copy() for x in scene.raw)))
    browser.edit('user', 0, 'something about robots')
    assert 'another vector for the old text' in browser.changed.value
    odd = dataclasses.replace(scene, vectors=tuple(x[:, ::-1].copy() for x in scene.vectors))  # not what in_basis gives
    browser = ProfileBrowser(odd)
    browser.edit('user', 0, 'something about robots')
    p, _ = teacher(scene.vectors[0][[0]], scene.vectors[1])
    assert np.allclose(
        browser.change.sort_values('item').p_before, p[0], atol=1e-5
    )  # old and new are compared in one basis


def test_save_is_careful(browser, tmp_path, monkeypatch):
    path = tmp_path / 'new' / 'edits.parquet'
    with pytest.raises(ValueError, match='no edits'):
        browser.save(path)
    browser.edit('user', 1, 'robots \ud800 and <b>gardens</b>')
    browser.path.value = str(path)
    browser.keep.click()
    assert browser.error is None and 'edits.parquet' in browser.status.value
    back = pd.read_parquet(path)
    assert back.after.tolist() == ['robots \\ud800 and <b>gardens</b>'] and back.row.tolist() == [1]
    assert [p.name for p in path.parent.iterdir()] == ['edits.parquet']
    browser.edit('user', 2, 'more robots')
    assert len(pd.read_parquet(browser.save(path))) == 2  # its own file
    other = ProfileBrowser(browser.scene)
    other.edit('user', 1, 'something else')
    with pytest.raises(ValueError, match='exists and was not written by this browser'):
        other.save(path)
    assert len(pd.read_parquet(path)) == 2 and len(pd.read_parquet(other.save(path, overwrite=True))) == 1
    with pytest.raises(ValueError, match='does not end in .parquet'):
        browser.save(tmp_path / 'edits.csv')
    monkeypatch.setattr(pd.DataFrame, 'to_parquet', lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_table(browser.edited, path)
    assert len(path.read_bytes()) > 100 and [p.name for p in path.parent.iterdir()] == [
        'edits.parquet'
    ]  # the old file stands, no half of a new one
    browser.path.value = ''
    browser.keep.click()
    assert 'no file name' in message(browser)


# --- DistributionExplorer


def test_distribution_follows_its_controls(scene):
    w = DistributionExplorer(scene)
    assert w.error is None and w.user == 0 and w.frame.equals(distributions(scene, 0, 0.2, 0.2, 0.1))
    w.user = 7
    w.tied.value, w.tau.value = False, 0.5
    w.teacher_tau.value, w.floor.value = 0.07, 0.8
    want = distributions(scene, 7, w.tau.value, w.teacher_tau.value, 0.8)
    assert (
        np.isclose(w.tau.value, 0.5)
        and w.frame.equals(want)
        and w.frame.attrs == want.attrs
        and w.frame.attrs['weight'] >= 0.8
    )
    w.tied.value = True
    assert w.frame.attrs['teacher_tau'] == w.tau.value and w.teacher_tau.disabled
    w.basis.value = 'separate'
    assert np.allclose(
        w.frame.p, distributions(scene, 7, w.tau.value, w.tau.value, 0.8, shared=False).p
    ) and not np.allclose(w.frame.p, want.p)
    assert w.error is None and f"{w.frame.attrs['kl_before']:.4f} before" in w.numbers.value


def test_the_chart_follows(scene):
    w = DistributionExplorer(scene)
    plot = w.chart.plot
    w.shown.value, w.order.value, w.user = 12, 'q_after', 9
    p, q, after, train, test, added = plot.figure['data']
    order = np.argsort(-w.frame.q_after.to_numpy(), kind='stable')[:12]
    assert (
        w.chart.plot is plot
        and np.allclose(after['y'], w.frame.q_after[order])
        and np.allclose(p['y'], w.frame.p[order])
    )
    for trace, name in ((train, 'train'), (test, 'test'), (added, 'added')):
        assert trace['x'] == [k + 1 for k, i in enumerate(order) if w.frame[name][i]] and len(
            trace['hovertext']
        ) == len(trace['y']) == len(trace['x'])
    assert (
        len({t['line']['dash'] for t in (p, q, after)}) == 3
        and len({t['marker']['symbol'] for t in (train, test, added)}) == 3
    )  # not by colour alone
    assert w.points.item.tolist() == order.tolist() and after['line']['width'] > p['line']['width']


def test_plotly_is_sent_when_the_browser_asks(scene, monkeypatch):
    w, sent = DistributionExplorer(scene), []
    assert len(str(w.chart.plot.get_state())) < 100_000  # it is not part of the widget's state
    monkeypatch.setattr(w.chart.plot, 'send', lambda message, buffers: sent.append((message, buffers)))
    w.chart.plot.hear(None, {'kind': 'ready'}, [])
    assert sent[0][0] == {'kind': 'plotly'} and b'plotly.js v' in sent[0][1][0][:100]
    assert (
        'showSendToCloud: false' in w.chart.plot._esm and "'sendChartToCloud'" in w.chart.plot._esm
    )  # no button that would send the data away


def test_recommendations_are_those_of_the_evaluation(scene, data):
    w = DistributionExplorer(scene)
    for user in (0, 8):
        w.user = user
        for name, runs in (('before', scene.before), ('after', scene.after)):
            want = topk(*runs[0], 10, held_out(data)[1], rows=[user])[0]
            got = w.recommendations[w.recommendations.side == name]
            assert got['item'].tolist() == want[want >= 0].tolist() and got['rank'].tolist() == list(
                range(1, len(got) + 1)
            )
            assert got.hit.tolist() == [i in data.test[[user]].indices for i in got['item']]
        assert w.lists.value.count('★') == w.recommendations.hit.sum() + 1  # one in the caption


def test_valid_items_are_masked_only_where_the_settings_say_so(data, scene):
    likes_valid = np.zeros((60, 8), np.float32), np.zeros((40, 8), np.float32)
    user = int(np.argmax(np.diff(data.valid.indptr)))
    likes_valid[0][user, 0] = 1
    likes_valid[1][data.valid[[user]].indices, 0] = 1
    for mask, n in (('train+valid', 0), ('train', data.valid[[user]].nnz)):
        w = DistributionExplorer(
            dataclasses.replace(scene, before=likes_valid, after=[], settings={'mask': mask, 'width': 8})
        )
        w.user = user
        assert len(set(w.recommendations['item']) & set(data.valid[[user]].indices)) == n and set(
            w.recommendations.side
        ) == {'before'}


def test_distribution_with_few_parts(scene, data):
    w = DistributionExplorer(dataclasses.replace(scene, raw=None))
    assert w.basis.disabled and 'cannot be changed' in w.basis_note.value and w.error is None
    w = DistributionExplorer(dataclasses.replace(scene, before=[], after=[]))
    assert (
        w.error is None
        and w.recommendations.empty
        and 'no recommender' in w.lists.value
        and [v for _, v in w.order.options] == ['p']
    )
    assert 'KL' not in w.numbers.value and w.picture().startswith(b'\x89PNG')
    w = DistributionExplorer(data)
    assert 'no profile vectors' in message(w) and w.frame.empty
    assert w._repr_mimebundle_()['text/html']


@pytest.mark.parametrize(
    'text, said', [('nobody', 'no user has'), ('#60', 'rows go from #0 to #59'), ('<b>x', 'no user has')]
)
def test_users_that_are_not_there(scene, text, said):
    w = DistributionExplorer(scene)
    w.query.value = text
    assert said in message(w) and w.user == 0 and problems(w.alert.value) == []
    w.query.value = 'r0012'
    assert w.user == 12 and w.error is None and w.found.value == ('user', 12)
    for wrong in (60, -1, 1.5, 'x'):
        with pytest.raises(ValueError, match="row of the users|no user is called 'x'"):
            w.user = wrong
    assert w.user == 12


def test_without_a_living_figure_there_is_a_picture(scene, monkeypatch):
    from promax_nb.views import curves as curves_room

    def none(*a, **k):
        raise ModuleNotFoundError('gone', name='plotly')

    monkeypatch.setattr(curves_room, 'empty_figure', none)
    w = DistributionExplorer(scene)
    first = bytes(w.chart.picture.value)
    w.user = 3
    assert (
        'plotly is missing' in w.chart.out.children[0].value
        and first.startswith(b'\x89PNG')
        and bytes(w.chart.picture.value) != first
        and w.error is None
    )


def test_an_error_in_the_browser_is_shown_and_a_picture_takes_over(scene):
    w = DistributionExplorer(scene)
    w.chart.plot.hear(None, {'kind': 'error', 'text': '<b>no</b>'}, [])
    assert (
        message(w) == '⚠ RuntimeError: in the browser: <b>no</b>'
        and problems(w.alert.value) == problems(w.chart.out.children[0].value) == []
    )
    first = bytes(w.chart.picture.value)
    w.user = 4
    assert w.error is None and first.startswith(b'\x89PNG') and bytes(w.chart.picture.value) != first


def test_curve_points_by_a_curve_that_is_not_there(scene):
    table = distributions(dataclasses.replace(scene, after=[]), 0)
    with pytest.raises(ValueError, match='no q_after to sort by'):
        curve_points(table, 'q_after')
    with pytest.raises(ValueError, match='is unknown'):
        curve_points(table, 'train')
    assert len(curve_points(table, 'q_before', 1000)) == 40


# --- CandidateExplorer


def test_candidates_tell_the_whole_way(scene, data):
    w = CandidateExplorer(scene)
    user = w.user
    why = scene.provenance.query('user == @user')
    assert (
        w.error is None
        and len(w.frame) == len(why) > 0
        and set(w.frame.loc[w.frame.kept, 'item']) == set(scene.added[[user]].indices)
    )
    text = Reader(w.steps.value).text
    assert f'{data.train[[user]].nnz} training interactions' in text and f"allows {why['shift'].iloc[0]} more" in text
    assert (
        w.steps.value.count('✓ kept') == why.kept.sum() and w.steps.value.count('✗ beyond shift') == (~why.kept).sum()
    )
    unit = scene.vectors[0] / np.linalg.norm(scene.vectors[0], axis=1, keepdims=True)
    cosine = unit @ unit[user]
    assert user not in set(w.similar.user) and np.allclose(w.similar.similarity, cosine[w.similar.user], atol=1e-5)
    assert w.similar.similarity.is_monotonic_decreasing
    held = why.similar_users.explode().value_counts()
    assert dict(zip(w.similar.user, w.similar.candidates, strict=True)) == {u: held.get(u, 0) for u in w.similar.user}


def test_candidates_in_the_order_of_the_model(scene):
    why = scene.provenance.copy()
    user = int(why.user.min())
    rows = why.index[why.user == user]
    why['order'] = why['order'].astype(int)
    why.loc[rows, 'order'] = [0, *range(len(rows) - 1, 0, -1)]
    why.loc[rows, 'kept'] = why.loc[rows, 'order'] == 1
    why.loc[rows, 'dropped'] = ['not in ranking', *['<b>beyond</b>'] * (len(rows) - 2), '']
    why['fallback'] = why.user == user
    w = CandidateExplorer(dataclasses.replace(scene, provenance=why, vectors=None))
    outcome = re.findall(r'✓ kept|✗ [^<]*', w.steps.value)
    assert outcome[0] == '✓ kept' and outcome[-1] == '✗ not in ranking' and '&lt;b&gt;beyond' in outcome[1]
    assert 'order of retrieval stands' in w.steps.value and w.similar.similarity.isna().all()


def test_users_without_added_interactions(scene, data):
    w = CandidateExplorer(scene)
    counts = np.diff(data.train.indptr)
    busy = int(counts.argmax())
    w.user = busy
    assert (
        w.frame.empty
        and f'has {counts[busy]} training interactions, at or above the third quartile ({np.percentile(counts, 75):g})'
        in w.steps.value
    )
    assert 'no similar user holds' in why_none(scene, int(counts.argmin()))


def test_provenance_that_is_not_there(scene):
    with pytest.raises(ValueError, match='no provenance'):
        CandidateExplorer(dataclasses.replace(scene, provenance=None))
    less = scene.provenance.drop(columns=['via', 'order'])
    with pytest.raises(ValueError, match='no column via, order'):
        CandidateExplorer(dataclasses.replace(scene, provenance=less))


# --- hostile texts, long texts, still pictures


@pytest.fixture(scope='module')
def hostile(data):
    m, n = data.shape
    texts = [f'{HOSTILE[k % len(HOSTILE)]} caravan {k}' for k in range(m + n)]
    ids = [f'{HOSTILE[k % len(HOSTILE)]}{k}' for k in range(m)]
    data = dataclasses.replace(data, name=HOSTILE[1], users=data.users.assign(user=ids, **{HOSTILE[2]: HOSTILE[0]}))
    scene = build(data, texts, [f'{HOSTILE[k % len(HOSTILE)]} {k}' for k in range(n)])
    users = scene.users.assign(
        writer=[HOSTILE[k % len(HOSTILE)] for k in range(m)],
        prompt=texts[:m],
        status=HOSTILE[4],
        cost=0.5,
        error=HOSTILE[3],
    )
    return dataclasses.replace(scene, users=users)


def widgets_in(w):
    yield w
    for c in getattr(w, 'children', ()):
        yield from widgets_in(c)


def test_hostile_texts_stay_texts(hostile):
    browser, dist, cand = ProfileBrowser(hostile), DistributionExplorer(hostile), CandidateExplorer(hostile)
    seen = []
    for k in range(len(HOSTILE)):
        browser.show('user', k)
        browser.show('item', k)
        seen.append(browser.card.value)
        dist.user = cand.user = k
        for w in (browser, dist, cand):
            assert w.error is None
            for c in widgets_in(w):
                if type(c).__name__ == 'HTML':
                    assert problems(c.value) == [], c.value[:500]
            assert problems(w._repr_mimebundle_(exclude=['image/png'])['text/html']) == [] and len(repr(w)) < 200
    assert (
        '<script>alert(1)</script>' in Reader(seen[0]).text
        and '⟨U+202E⟩' in Reader(seen[17]).text
        and 'שלום עולם' in seen[23]
    )
    for figure_text in (t for trace in dist.chart.plot.figure['data'] for t in trace['hovertext']):
        assert not re.sub('<br>', '', figure_text).count('<')
    browser.edit('user', 0, HOSTILE[5])
    assert problems(browser.changed.value) == problems(browser.card.value) == []
    browser.search(HOSTILE[6], 'item')
    browser.query.value = HOSTILE[7]
    assert problems(browser.status.value) == problems(browser.alert.value) == []


def test_a_megabyte_is_not_sent(hostile):
    k = len(HOSTILE) - 1
    browser, dist, cand = ProfileBrowser(hostile), DistributionExplorer(hostile), CandidateExplorer(hostile)
    for kind in ('user', 'item'):
        browser.show(kind, k)
        assert (
            browser.editor.disabled
            and 'cannot be edited' in browser.edit_note.value
            and '1,000,0' in browser.card.value
        )
        with pytest.raises(ValueError, match='use at most'):
            browser.edit(kind, k, 'x' * 10**6)
    dist.user = cand.user = k
    for w in (browser, dist, cand):
        for c in widgets_in(w):
            assert len(str(c.get_state())) < 300_000, type(c).__name__
        assert len(w._repr_mimebundle_()['text/html']) < 200_000
    browser.show('user', 0)
    assert not browser.editor.disabled and Reader(browser.edit_note.value).text == ''


def test_a_still_picture_is_left_in_static_pages(scene):
    browser, dist, cand = ProfileBrowser(scene), DistributionExplorer(scene), CandidateExplorer(scene)
    for w, picture in ((browser, False), (dist, True), (cand, False)):
        b = w._repr_mimebundle_(include=None, exclude=None)
        assert (
            'application/vnd.jupyter.widget-view+json' in b
            and scene.name('user', w.node[1]) in b['text/html']
            and ('image/png' in b) == picture
        )
    from base64 import b64decode

    assert b64decode(dist._repr_mimebundle_()['image/png']).startswith(
        b'\x89PNG'
    ) and 'image/png' not in dist._repr_mimebundle_(exclude={'image/png'})
    dist.picture = lambda: 1 / 0
    assert dist._repr_mimebundle_()['text/html'] and 'ZeroDivisionError' in message(
        dist
    )  # a picture that fails does not take the widget along


# --- how they are built


def test_explorers_hold_parts_and_stand_on_no_ladder(scene):
    """At most two classes of ours up to ipywidgets; a part is no widget, but has one to show, and tells of changes."""
    browser, dist, cand = ProfileBrowser(scene), DistributionExplorer(scene), CandidateExplorer(scene)
    for widget in (browser, dist, cand):
        assert [c for c in type(widget).__mro__ if c.__module__.startswith('promax_nb')] == [type(widget), Explorer]
    lent = [browser.finder, browser.finder.found, browser.near, browser.editing, dist.finder, dist.sliders, dist.chart]
    assert {part.notice for part in lent} == {browser.notice, dist.notice}  # errors appear in one place
    lookup = Lookup(scene)
    alone = [Finder(lookup), UserFinder(lookup), Neighbours(), Editor(Edits(scene)), Sliders(scene), Chart()]
    for part in alone:
        heard = []
        assert isinstance(part, Part) and isinstance(part.out, ipywidgets.Widget)
        assert not isinstance(part, ipywidgets.Widget)
        assert part.on_change(lambda *what, to=heard: to.append(what)) is part
        part.changed('user', 3)
        assert heard == [('user', 3)]


def test_a_list_tells_only_what_a_person_chose(scene):
    lookup, chosen = Lookup(scene), []
    nodes = NodeList().on_change(lambda *node: chosen.append(node))
    nodes.fill(lookup.first('user'))
    nodes.mark(('user', 5))
    nodes.fill(lookup.first('item'))
    assert chosen == [] and nodes.value is None
    nodes.fill(lookup.first('user'))
    assert nodes.value == ('user', 5)  # still marked
    nodes.out.index = 7
    assert chosen == [('user', 7)]


def test_cards_are_parts_of_a_page(browser, tmp_path):
    """The page on disk shows the same card as the notebook, and a browser as its still picture."""
    browser.show('user', 4)
    path = save_html({'one': browser, 'two': browser.card.value}, tmp_path / 'page.html')
    assert path.read_text(encoding='utf-8').count(browser.card.value) == 2


# --- controls and size


def test_controls_are_labelled(scene):
    for w in (ProfileBrowser(scene), DistributionExplorer(scene), CandidateExplorer(scene)):
        controls = [c for c in widgets_in(w) if hasattr(c, 'disabled')]
        assert len(controls) >= 2 and all(c.description.strip() for c in controls)


def test_lists_stay_short_for_many_nodes():
    import scipy.sparse as sp

    from promax_nb.data.interactions import RecData

    m, n, rng = 10_000, 10_000, np.random.default_rng(0)

    def wheel(*steps):
        return sum(sp.identity(n, format='csc', dtype=np.float32)[:, np.roll(np.arange(n), k)] for k in steps).tocsr()

    train = wheel(0, 1, 2, 3, 4)
    users, items = (
        pd.DataFrame({'user': [f'u{k}' for k in range(m)]}),
        pd.DataFrame({'item': [f'i{k}' for k in range(n)]}),
    )
    items['title'], items['text'] = [f'Book {k}' for k in range(n)], ''
    vectors = tuple(rng.normal(size=(k, 8)).astype('f4') for k in (m, n))
    data = RecData(train, wheel(5), wheel(6), users, items)
    big = Scene(data, [f'p{k}' for k in range(m)], [f'q{k}' for k in range(n)], vectors, vectors, vectors)
    browser, dist = ProfileBrowser(big), DistributionExplorer(big)
    assert browser.error is None and dist.error is None and len(browser.found.options) == len(dist.found.options) == 200
    assert len(browser.search('book', 'item')) == 200 and len(browser.found.options) == 200
    browser.show('user', 9_999)
    dist.user = 9_999
    assert len(dist.points) == 60 and len(dist.frame) == n and 'u9999' in browser.card.value
    assert len(browser.history) == train[[9_999]].nnz


def test_profile_change_is_zero_without_a_change(scene):
    t = profile_change(scene, scene, 'user', 3)
    assert (t.p_before == t.p_after).all() and t.attrs['kl'] == 0


# --- PairBrowser


@pytest.fixture(scope='module')
def lettingo():
    """Styles explored, judged and paired on a small dense bookshop whose first title is hostile."""
    from promax_nb.lettingo.builtin import fit_judge
    from promax_nb.lettingo.explore import explore
    from promax_nb.lettingo.histories import split_history
    from promax_nb.lettingo.judge import judge
    from promax_nb.lettingo.pairs import make_pairs
    from promax_nb.lettingo.styles import styled

    data = toy_data(60, 250, density='dense', split='temporal')
    data.items.loc[0, 'title'] = '<img src=x onerror=alert(1)>'
    past = split_history(data, targets=12, dislike=3, like=5, users=range(40))
    texts = explore([styled(s) for s in ('true', 'invented', 'vague')], data, past, n=2, progress=False)
    critic = fit_judge(data, past, texts[texts.writer == 'style:true'])
    scores = judge(texts, data, past, critic, progress=False)
    return data, past, texts, scores, make_pairs(texts, scores, margin=0.05)


def test_pairs_are_shown_with_what_made_them(lettingo):
    data, past, texts, scores, pairs = lettingo
    after = texts[texts.writer == 'style:true'].assign(profile='<script>alert(2)</script> is now said')
    w = PairBrowser(data, past, texts, scores, pairs.sample(frac=1, random_state=1), before=texts, after=after)
    user = int(pairs.user.iloc[-1])
    w.user = user
    own = scores[scores.user == user].set_index(['writer', 'sample'])
    assert len(w.frame) == 6 and w.frame.logp.is_monotonic_decreasing
    assert all(own.loc[(r.writer, r.sample), 'logp'] == r.logp for r in w.frame.itertuples())
    assert w.frame.chosen.sum() == w.frame.rejected.sum() == len(w.chosen) == (pairs.user == user).sum() > 0
    assert (
        w.targets.item.tolist() == past[(past.user == user) & (past.role == 'target')].sort_values('time').item.tolist()
    )
    assert (
        'is now said' in w.body.value
        and '<script' not in w.body.value
        and '<img' not in w.body.value
        and not message(w)
    )
    assert 'Candidates (6)' in w._repr_mimebundle_()['text/html']
    told = w.body.value[w.body.value.index('The writer before and after') :]
    assert 'pm-supported' in told and 'pm-contradicted' in told, 'claims as chips, held against what the writer saw'
    w.user = 55  # known to the data, not explored
    assert 'no candidate profiles' in w.body.value


def test_pair_browser_refuses_the_wrong_tables(lettingo):
    data, past, texts, scores, pairs = lettingo
    with pytest.raises(ValueError, match='scores has no column logp'):
        PairBrowser(data, past, texts, scores.drop(columns='logp'), pairs)
    with pytest.raises(ValueError, match='profiles is empty'):
        PairBrowser(data, past, texts.iloc[:0], scores, pairs)


def test_ids_stand_wherever_a_user_or_an_item_is_asked_for(scene, browser):
    user, item = str(scene.data.users.user[3]), str(scene.data.items.item[5])
    browser.show('user', user)
    assert browser.picked == ('user', 3)
    browser.picked = 'item', item
    assert browser.picked == ('item', 5) and scene.row('item', 5) == scene.row('item', item) == 5
    explorer = DistributionExplorer(scene)
    explorer.user = user
    assert explorer.user == 3 and distributions(scene, user).equals(distributions(scene, 3))
    near = user[:-1]
    such = f"an id such as '{scene.data.users.user[0]}'"
    for wrong, said in ((near, 'no user is called'), (True, such), (10**6, 'a row number')):
        with pytest.raises(ValueError, match=said):
            scene.row('user', wrong)
    with pytest.raises(Exception, match='no item is called'):
        browser.show('item', 'nothing like it')
