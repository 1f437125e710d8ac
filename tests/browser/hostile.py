"""Texts that try to become something else, and small scenes of random arrays: one full of them, one with mild ones."""

import numpy as np
import pandas as pd

WORD = 'Donaudampfschifffahrt' * 150
# name -> text. Each calls __hit(its name) where it would run, or points at evil.example where it would load something.
TEXTS = {
    'script': '<script>__hit("script")</script> plain end',
    'script-src': '<script src="https://evil.example/a.js"></script>src',
    'script-case': '<ScRiPt >__hit("script-case")</sCrIpT >case',
    'img': 'see <img src=x onerror=__hit("img")> here',
    'img-quote': '"><img src=x onerror=__hit(`img-quote`)>',
    'img-single': "'><img src=x onerror='__hit(\"img-single\")'>",
    'img-outside': '<img src="http://evil.example/pixel.png">pixel',
    'svg': '<svg onload=__hit("svg")><circle r=9></svg>round',
    'svg-script': '<svg><script>__hit("svg-script")</script></svg>deep',
    'math': '<math><mtext></p><style><img src=x onerror=__hit("math")></style></mtext></math>',
    'close-script': '</script><script>__hit("close-script")</script>after',
    'close-textarea': '</textarea><img src=x onerror=__hit("close-textarea")>area',
    'close-style': '</style><script>__hit("close-style")</script>style',
    'close-title': '</title><script>__hit("close-title")</script>title',
    'close-pre': '</pre></td></tr></table></div><img src=x onerror=__hit("close-pre")>pre',
    'comment': '--><script>__hit("comment")</script><!--',
    'open-comment': '<!--<script> and no end',
    'cdata': ']]><script>__hit("cdata")</script>',
    'event': '" onmouseover="__hit(\'event\')" onfocus=__hit("event") autofocus tabindex=1 x="',
    'event-single': "' onclick='__hit(1)' style='position:fixed;inset:0' x='",
    'javascript': 'javascript:__hit("javascript")//',
    'javascript-link': '<a href="javascript:__hit(\'javascript-link\')">press</a>',
    'javascript-tab': '<a href="java\tscript:__hit(\'javascript-tab\')">press tab</a>',
    'markdown': '[press](javascript:__hit("markdown")) ![p](http://evil.example/m.png)',
    'data-url': 'data:text/html,<script>__hit("data-url")</script>',
    'data-frame': '<iframe src="data:text/html,<script>parent.__hit(1)</script>"></iframe>framed',
    'srcdoc': '<iframe srcdoc="<script>parent.__hit(\'srcdoc\')</script>"></iframe>doc',
    'object': '<object data="http://evil.example/o.swf"></object><embed src="http://evil.example/e">thing',
    'meta': '<meta http-equiv="refresh" content="0;url=http://evil.example/">again',
    'base': '<base href="http://evil.example/"><link rel=stylesheet href="http://evil.example/s.css">based',
    'form': '<form action="javascript:__hit(1)"><button formaction="javascript:__hit(2)">send</button></form>',
    'css': '<style>@import "http://evil.example/i.css"; body{display:none}</style>css',
    'css-value': 'red;}</style>*{background:url(http://evil.example/b.png)}',
    'plotly-bold': '<b>bold</b><br>next<sub>low</sub><i>it</i><span style="font-size:90px">huge</span>',
    'plotly-link': '<a href="javascript:__hit(\'plotly-link\')">p</a>'
    '<a href="https://evil.example/" target="_self">q</a>',
    'plotly-template': '%{x} %{customdata} %{customdata[0]} %{meta.constructor} <extra></extra>',
    'mathjax': r'$\href{javascript:__hit("mathjax")}{x}$ and $$\require{html}\style{background:url(http://evil.example/)}{y}$$',
    'mathjax-paren': r'\(\href{javascript:__hit(1)}{x}\) \[ \unicode{x1F600} \] \begin{equation}z\end{equation}',
    'json': '\\"}],"x":[{"y":"\\u003cscript>__hit(1)</script>',
    'line-ends': 'first\u2028second\u2029third\r\nfourth\x85fifth',
    'braces': '{{constructor.constructor("__hit(1)")()}} ${__hit("braces")} {% x %} {0} {title} %s %(a)s',
    'backtick': '`${__hit("backtick")}`;__hit("backtick");//',
    'entities': '&lt;script&gt;__hit(1)&lt;/script&gt; &#60;img src=x onerror=__hit(2)&#62; &amp;amp; &nosuch;',
    'prototype': '__proto__',
    'constructor': 'constructor',
    'bidi': 'invoice\u202excod.exe\u202c \u2066left\u2069 \u200fmark',
    'null': 'a\x00b<\x00script>__hit("null")</script>\x1b[31mred\x07',
    'zero-width': '\u200b\u200c\u200d\ufeffthin\u2060air',
    'rtl': 'שלום עולם مرحبا بالعالم',
    'emoji': 'reader 👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 e\u0301 🇩🇪',
    'combining': 'Z' + ''.join(chr(0x300 + k % 0x6F) for k in range(200)) + 'algo',
    'word': WORD,
    'blank': ' \t\n ',
    'spaces': 'many      spaces\n\n\n\nand lines',
    'overlong': '\ufffd\uffff\U0010ffff replacement',
    'sql': "Robert'); DROP TABLE users;--",
    'formula': '=HYPERLINK("http://evil.example/","press")',
}
LONG = (
    'long <img src=x onerror=__hit("long")> '
    + 'many words, and more of them, ' * 34_000
    + '<script>__hit("long")</script> the end'
)  # 1 MB
LONE = 'lone \ud800 surrogate \udfff end <img src=x onerror=__hit("lone")>'
COLUMNS = {
    'kind': '<img src=x onerror=__hit("column")>',
    'number': '</script><script>__hit("number")</script> $x$',
    'own': '__proto__',
}


def _world(n_users: int, n_items: int, seed: int, width: int = 16):
    """Random tastes, and matrices that follow them: user and item tastes, train, valid, test."""
    import scipy.sparse as sp

    rng = np.random.default_rng(seed)
    zu, zi = (rng.standard_normal((n, width)).astype(np.float32) for n in (n_users, n_items))
    liked = np.argsort(-(zu @ zi.T + rng.standard_normal((n_users, n_items))), 1)
    split = {k: sp.lil_matrix((n_users, n_items), dtype=np.float32) for k in ('train', 'valid', 'test')}
    for u in range(n_users):
        n = 2 + u % 9
        for k, part in (('train', liked[u, :n]), ('valid', liked[u, n : n + 2]), ('test', liked[u, n + 2 : n + 5])):
            split[k][u, part] = 1
    return zu, zi, {k: v.tocsr() for k, v in split.items()}


def _profiles(texts: list, sources: list, mild: bool) -> pd.DataFrame:
    """A profile table as `write` returns it; texts are objects, because pandas' text type refuses lone surrogates."""
    n = len(texts)

    def column(values):
        return pd.Series(list(values), dtype=object)

    prompt = [f'Tell what this one enjoys: {t[:300]}' for t in texts]
    writer = ['template'] * n if mild else [texts[k][:500] for k in np.roll(np.arange(n), 3)]
    status = ['ok'] * n if mild else [texts[k][:200] if k % 7 == 0 else 'ok' for k in range(n)]
    return pd.DataFrame(
        {
            'id': range(n),
            'profile': column(texts),
            'writer': column(writer),
            'status': column(status),
            'prompt': column(prompt),
            'sources': column(sources),
        }
    )


def _scene(user_ids, item_ids, titles, texts, profiles, columns, mild, seed, **names):
    from promax_nb.data.interactions import RecData
    from promax_nb.retrieval.augment import augment
    from promax_nb.views.scene import Scene

    M, N = len(user_ids), len(item_ids)
    zu, zi, split = _world(M, N, seed)
    rng = np.random.default_rng(seed + 1)

    def near(x, noise):
        return x + noise * rng.standard_normal(x.shape).astype(np.float32)

    kinds = (
        [list(TEXTS.values())[k] for k in (0, 3, 10, 33, 36)]
        if not mild
        else ['novel', 'poetry', 'travel', 'cooking', 'history']
    )
    facts = {
        columns['kind']: [kinds[k % 5] for k in range(max(M, N))],
        columns['number']: rng.normal(50, 12, max(M, N)).round(1),
        columns['own']: [kinds[k % 3] for k in range(max(M, N))],
    }
    users = pd.DataFrame({'user': user_ids} | {k: v[:M] for k, v in facts.items()})
    items = pd.DataFrame({'item': item_ids, 'title': titles, 'text': texts} | {k: v[:N] for k, v in facts.items()})
    data = RecData(
        **split,
        users=users,
        items=items,
        name=names.get('name', 'small'),
        meta={'source': names.get('name', 'random arrays')},
    )
    su, si = near(zu, 0.6), near(zi, 0.6)
    added, why = augment(data, su, si, k_users=10, n_candidates=12)
    lift = rng.standard_normal((zu.shape[1], 384)).astype(np.float32)
    people = _profiles(profiles[:M], [data.train[u].indices.tolist() for u in range(M)], mild)
    things = _profiles(profiles[-N:], [[i] for i in range(N)], mild)
    epochs = np.arange(1, 10)
    history = pd.DataFrame(
        {
            'epoch': epochs,
            'bpr': 1 / epochs,
            'seconds': 0.1,
            'recall@20': np.where(epochs % 3 == 0, epochs / 100, np.nan),
        }
    )
    return Scene(
        data,
        people,
        things,
        (su, si),
        [(near(zu, 1.0), near(zi, 1.0)) for _ in range(2)],
        [(near(zu, 0.8), near(zi, 0.8)) for _ in range(2)],
        added,
        why,
        (near(su @ lift, 0.3), near(si @ lift, 0.3)),
        {'width': su.shape[1]},
        {names.get('history', 'base'): history},
    )


def hostile_scene(n_users: int = 60, n_items: int = 60, seed: int = 0, lone: bool = True):
    """A scene in which every text is hostile.

    These are ids, titles, texts, profiles, prompts, writers, statuses, names and values of attributes, the data's name
    and those of trainings. `lone` puts lone surrogates into the profiles (the data's own tables cannot hold them).
    Two profiles, an item's text and a title are 1 MB long.
    """
    all_texts = list(TEXTS.values())

    def take(n, shift):
        return [all_texts[(k + shift) % len(all_texts)] for k in range(n)]

    def once(texts):
        return [t if texts.index(t) == k and t.strip() else f'{t} no {k}' for k, t in enumerate(texts)]

    titles, texts = take(n_items, 0), take(n_items, 5)
    titles[-1], texts[-2] = LONG, LONG
    profiles = take(n_users + n_items, 11)
    profiles[1] = profiles[n_users + 1] = LONG
    if lone:
        profiles[2] = profiles[n_users + 2] = LONE
    return _scene(
        once(take(n_users, 0)),
        once(take(n_items, 2)),
        titles,
        texts,
        profiles,
        COLUMNS,
        False,
        seed,
        name=TEXTS['img'],
        history=TEXTS['close-script'],
    )


def small_scene(n_users: int = 60, n_items: int = 60, seed: int = 0):
    """The same arrays with mild texts."""
    topics = ['harbours', 'old maps', 'tea houses', 'winter walks', 'brass bands', 'slow trains', 'mountain huts']

    def about(k):
        return f'{topics[k % 7]} and {topics[(k // 7 + 3) % 7]}'

    profiles = [f'Enjoys {about(u)}, calm stories with a dry humour.' for u in range(n_users)]
    profiles += [f'A book about {about(i)} for patient readers.' for i in range(n_items)]
    titles, texts = (
        [f'The Book of {about(k)} {k}' for k in range(n_items)],
        [f'Tells of {about(k)}.' for k in range(n_items)],
    )
    columns = {'kind': 'genre', 'number': 'age', 'own': 'shelf'}
    return _scene(
        [f'u{k:03d}' for k in range(n_users)],
        [f'b{k:03d}' for k in range(n_items)],
        titles,
        texts,
        profiles,
        columns,
        True,
        seed,
    )


def flat_maps(scene, hostile: bool = False):
    """A Projection without UMAP (which would compile for half a minute): two principal directions of each space."""
    from promax_nb.views import maps as maps_room

    class Flat(maps_room.Projection):
        def describe(self):
            return self.record['note']

    coords, labels, codes = {}, {}, {}
    names = (
        [TEXTS['svg'], TEXTS['plotly-link'], TEXTS['mathjax'], COLUMNS['kind']]
        if hostile
        else ['maps, harbours', 'trains', 'walks', 'tea, huts']
    )
    for space, pair in scene.spaces().items():
        x = np.concatenate(pair).astype(np.float64)
        x -= x.mean(0)
        xy = x @ np.linalg.svd(x, full_matrices=False)[2][:2].T
        coords[space] = xy.astype(np.float32)
        corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * np.abs(xy).max(0) * 0.6
        codes[space] = ((xy[:, None] - corners) ** 2).sum(2).argmin(1)
        size = np.bincount(codes[space], minlength=4)
        labels[space] = pd.DataFrame(
            {'cluster': range(4), 'x': corners[:, 0], 'y': corners[:, 1], 'size': size, 'text': names}
        )
    note = TEXTS['close-pre'] if hostile else 'Principal directions of random arrays, for tests.'
    return Flat(coords, scene.data.n_users, scene.data.n_items, {'note': note}, labels=labels, clusters=codes)


def named_maps(scene, hostile: bool = False):
    """`flat_maps`, its regions named by a function that calls each by the length of the question."""
    from promax_nb.views.naming import name_regions_by

    def by_length(prompt):
        return f'Region of {len(prompt)}'

    by_length.name = TEXTS['img'] if hostile else 'by length'
    return name_regions_by(by_length, scene, flat_maps(scene, hostile), progress=False)


def pair_tables(hostile: bool = False) -> tuple:
    """What PairBrowser shows: a small shop, histories, candidate profiles, scores, pairs, texts after alignment."""
    from promax_nb.data.bookshop import toy_data
    from promax_nb.lettingo.builtin import fit_judge
    from promax_nb.lettingo.explore import explore
    from promax_nb.lettingo.histories import split_history
    from promax_nb.lettingo.judge import judge
    from promax_nb.lettingo.pairs import make_pairs
    from promax_nb.lettingo.styles import styled

    data = toy_data(24, 250, density='dense', split='temporal')
    past = split_history(data, targets=12, dislike=3, like=5, users=range(20))
    texts = explore([styled(s) for s in ('true', 'invented', 'vague')], data, past, n=2, progress=False)
    scores = judge(texts, data, past, fit_judge(data, past, texts[texts.writer == 'style:true']), progress=False)
    pairs = make_pairs(texts, scores, margin=0.02)
    after = texts[(texts.writer == 'style:true') & (texts['sample'] == 0)]
    if hostile:
        bad = list(TEXTS.values())

        def evil(n, start):
            return [bad[(start + k) % len(bad)] for k in range(n)]

        data.items['title'] = evil(data.n_items, 0)
        data.users['user'] = [f'{t} {k}' for k, t in enumerate(evil(data.n_users, 3))]
        texts = texts.assign(profile=evil(len(texts), 0))
        after = after.assign(profile=evil(len(after), 7))
        pairs = pairs.assign(chosen=evil(len(pairs), 0), rejected=evil(len(pairs), 1))
    return data, past, texts, scores, pairs, after


class WordReader:
    """A text model without weights: every word has a direction of its own."""

    name = 'words by their letters'

    def encode(self, texts, **how):
        import zlib

        vectors = np.zeros((len(texts), 24), np.float32)
        for row, text in enumerate(texts):
            for word in text.casefold().split():
                letters = zlib.crc32(word.strip('.,').encode('utf-8', 'replace'))
                vectors[row] += np.random.default_rng(letters).standard_normal(24)
        return vectors


def served(scene):
    """What recommends from a scene, with a text model that needs no file."""
    from promax_nb.recommend.build import recommender
    from promax_nb.retrieval.embed import encode, whitening

    reader, texts = WordReader(), (scene.users.profile.tolist(), scene.items.profile.tolist())
    raw = [encode(side, reader, empty='zero') for side in texts]
    place = whitening(np.concatenate(raw), 6)
    return recommender(
        scene.data,
        scene.after[0],
        base=scene.before[0],
        profiles=texts,
        vectors=tuple(map(place, raw)),
        place=(place, place),
        encoder={'model': reader},
        added=scene.added,
    )
