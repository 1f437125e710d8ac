"""The contracts that people run on their own: ours keep them, and each broken promise is met with its sentence."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from promax_nb.lettingo.builtin import fit_judge
from promax_nb.lettingo.styles import STYLES, styled
from promax_nb.models.bases import GCCF, MF, LightGCN, Recommender, SimGCL
from promax_nb.models.losses import bpr_loss
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.profiles.llm import chat
from promax_nb.profiles.template import template
from promax_nb.retrieval.embed import encode
from promax_nb.testing import (
    check_base,
    check_encoder,
    check_judge,
    check_objective,
    check_writer,
    judge_world,
)

# bases ---------------------------------------------------------------------------------------------------------------


def cold_lightgcn(data, seed):
    return LightGCN(data, dim=4, seed=seed, sum_layers=(1, 2), edge_drop=0.2, cold='layer0')


@pytest.mark.parametrize('base', [MF, LightGCN, GCCF, SimGCL, cold_lightgcn])
def test_our_bases_keep_the_contract(base):
    check_base(base)


class OneHop(Recommender):
    """A base like those of the recipes, made wrong in a subclass."""

    def forward(self, adj=None):
        return self.split(sum(self.layers(self.adj if adj is None else adj, 1)))


class NoPair(OneHop):
    def forward(self, adj=None):
        return super().forward(adj)[0]


class Swapped(OneHop):
    def forward(self, adj=None):
        return super().forward(adj)[::-1]


class Broken(OneHop):
    def forward(self, adj=None):
        users, items = super().forward(adj)
        return users / 0, items


class Falling(OneHop):
    def forward(self, adj=None):
        raise RuntimeError('the table is missing')


class Greedy(OneHop):
    def __init__(self, data, dim=4, seed=0):
        super().__init__(data, dim, seed)
        data.train.data[:] = 0.5


class Unseeded(OneHop):
    def __init__(self, data, dim=4, seed=0):
        super().__init__(data, dim, seed)
        self.user.data.normal_()


class Fixed(OneHop):
    def __init__(self, data, dim=4, seed=0):
        super().__init__(data, dim, seed=7)


class Idle(OneHop):
    def __init__(self, data, dim=4, seed=0):
        super().__init__(data, dim, seed)
        self.spare = torch.nn.Parameter(torch.ones(3))


class Detached(OneHop):
    def forward(self, adj=None):
        return tuple(x.detach() for x in super().forward(adj))


class Noisy(OneHop):
    def forward(self, adj=None):
        users, items = super().forward(adj)
        return users + torch.randn_like(users) * 0.01, items


class Deaf(OneHop):
    def forward(self, adj=None):
        return super().forward(None)


class Forgetful(OneHop):
    """Keeps what it learned beside its parameters."""

    def __init__(self, data, dim=4, seed=0):
        super().__init__(data, dim, seed)
        self.shift = torch.full((dim,), float(seed))

    def forward(self, adj=None):
        users, items = super().forward(adj)
        return users + self.shift, items


class Counting(OneHop):
    """Changes with every call while it trains, outside its parameters."""

    def __init__(self, data, dim=4, seed=0):
        super().__init__(data, dim, seed)
        self._calls = 0

    def forward(self, adj=None):
        users, items = super().forward(adj)
        self._calls += self.training
        return users * (1 + 0.1 * self._calls * self.training), items


class Drawing(OneHop):
    """Draws from a generator that nobody seeds."""

    def forward(self, adj=None):
        users, items = super().forward(adj)
        return users * (1 + float(np.random.random()) * self.training), items


class Plain:
    """No module at all."""

    def __init__(self, data, seed=0):
        pass


class Lonely(torch.nn.Module):
    """A module of one's own, without a graph."""

    def __init__(self, data, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        m, n = data.train.shape
        self.user = torch.nn.Parameter(torch.randn(m, 4, generator=generator))
        self.item = torch.nn.Parameter(torch.randn(n, 4, generator=generator))

    def forward(self, adj=None):
        return self.user, self.item


@pytest.mark.parametrize(
    'base,sentence',
    [
        (NoPair, 'return a pair of tensors'),
        (Swapped, 'return \\(60, d\\) and \\(40, d\\)'),
        (Broken, 'NaN or infinite before anything is trained'),
        (Falling, 'forward raised RuntimeError: the table is missing'),
        (Greedy, 'changes the training matrix'),
        (Unseeded, 'the same seed gives other start values'),
        (Fixed, 'another seed gives the same start values'),
        (Idle, 'no gradient reaches spare'),
        (Detached, 'the vectors have no gradient'),
        (Noisy, 'in eval mode the same call gives other vectors'),
        (Deaf, 'another graph gives the same vectors, so S2DR would do nothing'),
        (Lonely, 'which S2DR needs: derive it from Recommender'),
        (Forgetful, 'a checkpoint would not hold the model'),
        (Counting, 'a training that was stopped and continued ends elsewhere'),
        (Drawing, 'the same training gives other numbers the second time'),
        (Plain, 'make a torch.nn.Module'),
    ],
)
def test_broken_bases(base, sentence):
    with pytest.raises(AssertionError, match=f'^{base.__name__}.*{sentence}'):
        check_base(base, None if base is not Greedy else fresh_world())


def fresh_world():
    from promax_nb.data.bookshop import toy_data

    return toy_data(60, 40, seed=0)


# objectives ----------------------------------------------------------------------------------------------------------


def profiles(data):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(rows, 4)) for rows in data.train.shape]


OURS = {
    'BPR': lambda data: BPR(),
    'ProMax': lambda data: ProMax(*profiles(data), data.valid),
    'SDR': lambda data: ProMax(*profiles(data), s2dr=0, confidence='relative', topk=5),
    'S2DR': lambda data: ProMax(added=data.valid, sdr=0),
}


@pytest.mark.parametrize('name', OURS)
def test_our_objectives_keep_the_contract(name):
    check_objective(OURS[name])


def pairwise(model, users, pos, neg):
    u, i = model()
    return bpr_loss(u[users], i[pos], i[neg])


def rows(model, users, pos, neg):
    u, i = model()
    return {'bpr': (u[users] * (i[neg] - i[pos])).sum(1)}


def unsafe(model, users, pos, neg):
    value = pairwise(model, users, pos, neg)
    return {'bpr': value, 'spread': value * torch.arange(len(users)).float().std()}


def epoch_term(model, users, pos, neg):
    return {'epoch': pairwise(model, users, pos, neg)}


def constant(model, users, pos, neg):
    return {'bpr': torch.tensor(1.0)}


def items_only(model, users, pos, neg):
    return {'bpr': model()[1][pos].square().sum()}


def meddling(model, users, pos, neg):
    with torch.no_grad():
        model.user.mul_(0.99)
    return {'bpr': pairwise(model, users, pos, neg)}


def in_eval(model, users, pos, neg):
    model.eval()
    return {'bpr': pairwise(model, users, pos, neg)}


class Reporting(BPR):
    def report(self):
        return {'objective': self}


class Holding(BPR):
    def __init__(self):
        super().__init__()
        self.lines = (line for line in 'ab')


COUNTER = itertools.count(1)


def moody(data):
    class Moody(BPR):
        derived = ('weight',)

        def __init__(self):
            super().__init__()
            self.weight = float(next(COUNTER))

        def forward(self, *batch):
            return {'bpr': self.weight * super().forward(*batch)['bpr']}

    return Moody()


def flat(model, users, pos, neg):
    u, i = model()
    return {'bpr': (u.sum() + i.sum()) * 0 + u.sum() - u.sum().detach() + i.sum() - i.sum().detach()}


@pytest.mark.parametrize(
    'objective,sentence',
    [
        (pairwise, 'return a dict of named terms'),
        (rows, "the term 'bpr' is no scalar tensor"),
        (unsafe, "the term 'spread' is nan on an untrained model with 1 pairs"),
        (epoch_term, "a term called 'epoch' would overwrite"),
        (constant, 'its terms have no gradient'),
        (items_only, 'no gradient reaches the users or the items'),
        (meddling, 'changes the model that it measures'),
        (in_eval, 'changes the model that it measures'),
        (lambda: 3, 'cannot be called with a batch'),
        (Reporting, 'report\\(\\) as JSON raised TypeError'),
        (Holding, 'what it is made of raised Unreadable: there is a generator'),
    ],
)
def test_broken_objectives(objective, sentence):
    def broken(data):
        if isinstance(objective, type):
            return objective()
        return objective if objective.__name__ != '<lambda>' else objective()

    with pytest.raises(AssertionError, match=f'^broken.*{sentence}'):
        check_objective(broken)


def test_objectives_that_do_not_repeat():
    with pytest.raises(AssertionError, match='moody: the same training gives other numbers'):
        check_objective(moody)


# writers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('make', [template, lambda: template(seed=3), *(lambda s=s: styled(s) for s in STYLES)])
def test_our_writers_keep_the_contract(make):
    check_writer(make())


def test_a_server_keeps_the_contract(serve):
    server = serve()
    check_writer(chat('m', base_url=server.url, temperature=0))
    assert len(server.requests) >= 12


def test_a_model_on_this_machine_keeps_the_contract():
    from promax_nb.lettingo.tiny import tiny_lm, writer

    check_writer(writer(*tiny_lm()))
    check_writer(writer(*tiny_lm(), temperature=0))


def named(function, **more):
    for name, value in {'name': 'mine', **more}.items():
        setattr(function, name, value)
    return function


def renamed():
    def writer(prompt):
        writer.name = writer.name + '!'
        return 'Enjoys quiet books.'

    return named(writer)


def raising(prompt):
    raise RuntimeError('not today')


def drifting():
    turns = itertools.count()
    return named(lambda prompt: f'Enjoys {next(turns)} books.', deterministic=True)


@pytest.mark.parametrize(
    'writer,sentence',
    [
        ('Enjoys books.', 'a writer raised ValueError'),
        (lambda prompt: 'Enjoys quiet books.', 'this llm has no name'),
        (named(lambda prompt: ''), 'mine answers with an empty text'),
        (named(lambda prompt: None), 'mine answers with a NoneType'),
        (named(lambda prompt: prompt), 'mine answers with the prompt itself'),
        (named(raising), 'mine: asked for a profile raised RuntimeError: not today'),
        (named(lambda prompt: 'Enjoys books.', params={'tool': object()}), 'mine: params as JSON raised TypeError'),
        (drifting(), 'says that it is deterministic and answers one prompt in two ways'),
        (renamed(), 'name'),
    ],
)
def test_broken_writers(writer, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_writer(writer)


# judges --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['lexical', 'vectors'])
def test_our_judges_keep_the_contract(kind):
    check_judge(fit_judge(*judge_world(), kind=kind))


def generous(prompt):
    return 'like'


def test_a_function_as_a_judge_keeps_the_contract():
    check_judge(generous)
    check_judge(named(lambda prompt: 'dislike' if len(prompt) % 2 else 'like', deterministic=True))


def needs_a_profile(prompt):
    return 'like' if 'profile:' in prompt else 'who knows'


def with_chances(change):
    """A built-in judge whose probabilities are changed."""
    judge = fit_judge(*judge_world())
    scored = judge.scored
    judge.scored = lambda *a: change(scored(*a))
    return judge


@pytest.mark.parametrize(
    'make,sentence',
    [
        (lambda: named(lambda prompt: 'It depends.'), 'mine left 24 of 24 questions without an answer'),
        (lambda: named(needs_a_profile), 'mine left 4 of 24 .*also where there is no profile'),
        (lambda: named(raising), 'mine left 24 of 24'),
        (lambda: with_chances(lambda p: p * 2), 'are not between 0 and 1 with the sum 1'),
        (lambda: with_chances(lambda p: p - np.array([1.0, -1.0, 0])), 'are not between 0 and 1 with the sum 1'),
        (lambda: with_chances(lambda p: np.roll(p, 1, axis=0)), 'an answer depends on the other questions'),
        (lambda: 3, 'int: asked for its judgement raised'),
    ],
)
def test_broken_judges(make, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_judge(make())


# encoders ------------------------------------------------------------------------------------------------------------


def letters(texts):
    return np.array([[text.count(letter) for letter in 'aeioustrn物xlg'] for text in texts], dtype=np.float32)


class Letters:
    """An encoder as sentence-transformers has it."""

    name = 'letters'

    def encode(self, texts, **kw):
        return letters(texts)


def test_encoders_that_keep_the_contract():
    check_encoder(encode)
    check_encoder(letters)
    check_encoder(Letters())


@pytest.mark.parametrize(
    'encoder,sentence',
    [
        (lambda texts: letters(texts)[0], 'return one row per text'),
        (lambda texts: letters(texts)[:1], 'return one row per text'),
        (lambda texts: letters(texts)[:, : 2 + len(texts)], 'one width for all texts'),
        (lambda texts: letters(texts) - letters(texts).mean(0), 'depends on the texts beside it'),
        (lambda texts: letters(sorted(texts)), 'depends on the texts beside it|order of the texts'),
        (lambda texts: letters(texts) / 0 * 0, 'not made of finite numbers'),
        (lambda texts: letters(texts).astype(int), 'not made of finite numbers'),
        (lambda texts: letters(texts) + np.arange(len(texts))[:, None], 'depends on the texts beside it'),
        (lambda texts: letters(texts)[:, :1] * 0, 'different texts have the same vector'),
        (lambda texts: texts[99], 'encoding 6 texts raised IndexError'),
    ],
)
def test_broken_encoders(encoder, sentence):
    with pytest.raises(AssertionError, match=sentence), np.errstate(all='ignore'):
        check_encoder(encoder)


def test_contracts_need_nothing_but_the_package():
    """No pytest; and with -O, where bare assertions are dropped, they still refuse."""
    code = """
import sys
sys.modules['pytest'] = None
from promax_nb.testing import check_encoder
try:
    check_encoder(lambda texts: texts[0])
except AssertionError as e:
    print(e)
"""
    done = subprocess.run([sys.executable, '-O', '-c', code], capture_output=True, text=True)
    assert 'return one row per text' in done.stdout, done.stderr[-2000:]
