# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: -all
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: python3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Shaping the distribution
#
# > A teacher that is computed once, and objectives that carry the losses over any base.

# %%
#| default_exp models.objectives

# %%
#| export
import weakref

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from promax_nb.models.distributions import confidence, entropy
from promax_nb.models.losses import as_tensor, bpr_loss, s2dr_loss, sdr_loss

# %%
from promax_nb.models.losses import teacher


# %% [markdown]
# A recommender trained on clicks learns about the pairs it sees. For a user with five interactions among ten thousand items, what it
# says about the other 9,995 is a by-product. ProMax uses profiles there: not as extra features, but as a picture of **how the whole
# output distribution of this user should look**. Two losses are added to the usual ranking loss.
#
# * **SDR** (supervised distribution reshaping) pulls the recommender's distribution over *all* items towards the one that the profile
#   vectors draw.
# * **S2DR** (self-supervised) asks that users and items look the same through the training graph and through a second graph, to which
#   retrieved interactions were added ([the chapter on extra interactions](../retrieval/04_augment.ipynb)).
#
# Formulas are functions on tensors, and the objectives below only hold weights and buffers. That way a formula can be read beside the
# paper, checked by hand, and reused.

# %% [markdown]
# ## A teacher that is computed once
#
# Profiles do not change while the recommender trains, so neither do $p_u$ and $w_u$. `Teacher` computes the weights once, in blocks,
# and keeps the probabilities in one of three ways, all behind the same `rows`:
#
# * **dense**: the M x N table, when it fits the memory budget (411 MB at Amazon-book size);
# * **blocks**: nothing kept, each block computed again when needed, exact;
# * **topk**: the largest k probabilities of each user and a uniform rest: small, approximate, for catalogues of millions.

# %%
#| export
def _spread(
    top,  # (B, k) the largest probabilities of each row
    ids,  # (B, k) where they belong
    n: int,  # N
):  # (B, N) rows that sum to 1
    """Rows with k known probabilities and the rest spread evenly."""
    rest = (1 - top.sum(1, keepdim=True)).clamp_min(0) / max(n - top.shape[1], 1)
    return rest.expand(-1, n).clone().scatter_(1, ids, top)


# %%
#| export
class Teacher(nn.Module):
    """The profile distribution of every user, computed once within a memory budget."""

    def __init__(
        self,
        su,  # (M, k) profile vectors of users
        si,  # (N, k) profile vectors of items
        tau: float = 0.2,  # temperature
        floor: float = 0.1,  # smallest weight
        form: str = 'published',  # of the confidence weights, see `confidence`
        memory: float = 1.0,  # GiB the probabilities may take
        topk: int | None = None,  # keep only this many probabilities per user and spread the rest evenly
    ):
        super().__init__()
        su, si = (as_tensor(x).float() for x in (su, si))
        _check_vectors(su, si)
        self.tau, self.floor, self.form = tau, floor, form
        self.register_buffer('su', F.normalize(su, dim=1), persistent=False)
        self.register_buffer('si', F.normalize(si, dim=1), persistent=False)
        m, n = len(su), len(si)
        if topk is not None and not 1 <= topk <= n:
            raise ValueError(f'topk={topk} does not fit {n} items: use 1 to {n}.')
        self.mode = 'topk' if topk else 'dense' if 4 * m * n <= memory * 2**30 else 'blocks'
        for name, x in self._tables(topk).items():
            self.register_buffer(name, x, persistent=False)
        self.register_buffer('weight', confidence(self.sharpness, form, floor), persistent=False)

    def _softmax(self, su):
        return torch.softmax(su @ self.si.T / self.tau, 1)

    def _tables(self, topk):
        """One pass over the users in blocks: sharpness of each, and what of the probabilities is kept."""
        parts, size = {}, max(1, 2**24 // len(self.si))
        for s in range(0, len(self.su), size):
            p = self._softmax(self.su[s : s + size])
            made = {'sharpness': 1 - entropy(p) / np.log(max(p.shape[1], 2))}
            if self.mode == 'dense':
                made['table'] = p
            if self.mode == 'topk':
                made['top'], made['ids'] = p.topk(topk, dim=1)
            for k, v in made.items():
                parts.setdefault(k, []).append(v)
        return {k: torch.cat(v) for k, v in parts.items()}

    def rows(
        self,
        users,  # (B,) int: which users
    ):  # function: slice of the batch -> (rows, N) probabilities
        """The teacher's rows for a batch, handed out block by block."""

        def block(part):
            ids = users[part]
            if self.mode == 'dense':
                return self.table[ids]
            if self.mode == 'blocks':
                return self._softmax(self.su[ids])
            return _spread(self.top[ids], self.ids[ids], len(self.si))

        return block


# %%
#| export
def teacher_report(
    teacher: Teacher,
) -> dict:  # numbers for a protocol card
    """What the confidence weights look like: the share of users at the floor, and the spread of sharpness and weights."""
    q = torch.quantile(
        teacher.sharpness.float(), torch.tensor([0.1, 0.5, 0.9], device=teacher.sharpness.device)
    ).tolist()
    return {
        'share_at_floor': float((teacher.sharpness <= teacher.floor).float().mean()),
        'sharpness_p10_p50_p90': q,
        'form': teacher.form,
        'weight_min': float(teacher.weight.min()),
        'weight_mean': float(teacher.weight.mean()),
        'weight_max': float(teacher.weight.max()),
        'tau': teacher.tau,
        'floor': teacher.floor,
        'kept': teacher.mode,
    }


def _check_vectors(su, si):
    """Profile vectors have one width and no NaN."""
    if su.ndim != 2 or si.ndim != 2 or su.shape[1] != si.shape[1]:
        raise ValueError(
            f'user vectors are {tuple(su.shape)} and item vectors {tuple(si.shape)}: both need two dimensions and the same '
            'width. Make them with one call, whiten(users, items, dim=...).'
        )
    for name, x in (('user', su), ('item', si)):
        bad = int((~torch.isfinite(x)).any(1).sum())
        if bad:
            raise ValueError(
                f'{bad} {name} profile vectors contain NaN or infinity: encode those profiles again, or give them a text first.'
            )


def _check_size(teacher, m: int, n: int):
    """Refuse a model with other numbers of users and items."""
    if (len(teacher.su), len(teacher.si)) != (m, n):
        raise ValueError(
            f'profile vectors cover {len(teacher.su)} users and {len(teacher.si)} items but the model has {m} and {n}: '
            'pass one vector per id, in id order.'
        )


def _grown_graph(model, added):
    """The model's graph over its interactions and the added ones."""
    if added.shape != model.interactions.shape:
        raise ValueError(
            f'added is {added.shape} but the model was built on {model.interactions.shape}: augment the same data.'
        )
    return model.graph(model.interactions + added)


def _check_terms(su, si, added, sdr, s2dr, tau):
    """Every loss term that is switched on has what it needs."""
    if sdr < 0 or s2dr < 0 or tau <= 0:
        raise ValueError(f'sdr={sdr}, s2dr={s2dr}, tau={tau}: weights must not be negative, tau must be positive.')
    if sdr and (su is None or si is None):
        raise ValueError('SDR needs profile vectors of users and items: pass su and si, or set sdr=0.')
    if s2dr and added is None:
        raise ValueError('S2DR needs the added interactions of `augment`: pass added, or set s2dr=0.')


# %%
su, si = torch.randn(50, 8), torch.randn(30, 8)
dense, blocks, top = Teacher(su, si), Teacher(su, si, memory=0), Teacher(su, si, topk=29)
batch = torch.tensor([4, 9, 9, 2])
everything = slice(None)
assert (dense.mode, blocks.mode, top.mode) == ('dense', 'blocks', 'topk')
assert torch.allclose(dense.rows(batch)(everything), teacher(su[batch], si)[0])
assert torch.allclose(dense.rows(batch)(everything), blocks.rows(batch)(everything), atol=1e-6)
assert torch.allclose(dense.rows(batch)(everything), top.rows(batch)(everything), atol=1e-6)  # all but one kept: exact
assert torch.allclose(Teacher(su, si, topk=3).rows(batch)(everything).sum(1), torch.ones(4))
teacher_report(dense)


# %% [markdown]
# ## Objectives
#
# An objective is called with a model and a batch and answers with **named loss terms**; `fit` sums and logs every one of them. `BPR`
# is the plain base. `ProMax` adds the two losses. Setting a weight to zero switches its term off *and* skips its cost, so SDR alone and
# S2DR alone are the same class.

# %%
#| export
class BPR(nn.Module):
    """The base objective: BPR, plus whatever loss the model brings along."""

    def terms(self, model, users, pos, neg):
        """Named terms, and the vectors they were computed from."""
        u, i = view = model()
        terms = {'bpr': bpr_loss(u[users], i[pos], i[neg])}
        if hasattr(model, 'extra_loss'):
            terms.update(model.extra_loss(users, pos))
        return terms, view

    def forward(
        self,
        model,  # a base: model(adj=None) -> (users (M, d), items (N, d))
        users,  # (B,) int: users of the batch
        pos,  # (B,) int: a positive item of each
        neg,  # (B,) int: a sampled negative item of each
    ) -> dict:  # name -> scalar tensor
        """Named loss terms of one batch."""
        return self.terms(model, users, pos, neg)[0]

    def report(self) -> dict:
        """Settings and facts for the protocol card."""
        return {'objective': 'BPR'}


# %%
#| export
class ProMax(BPR):
    """BPR with supervised (SDR) and self-supervised (S2DR) distribution reshaping."""

    def __init__(
        self,
        su=None,  # (M, k) profile vectors of users; needed when sdr > 0
        si=None,  # (N, k) profile vectors of items, same space as su
        added=None,  # (M, N) scipy sparse: added interactions only (from `augment`); needed when s2dr > 0
        sdr: float = 0.5,  # lambda 1
        s2dr: float = 0.1,  # lambda 2
        tau: float = 0.2,  # temperature of the student and of S2DR
        teacher_tau: float | None = None,  # temperature of the teacher; None: the same
        confidence: str = 'published',  # form of the weights: 'published' or 'relative'
        floor: float = 0.1,  # smallest published weight
        memory: float = 1.0,  # GiB for the teacher's table
        topk: int | None = None,  # approximate teacher, see `Teacher`
    ):
        super().__init__()
        _check_terms(su, si, added, sdr, s2dr, tau)
        self.sdr, self.s2dr, self.tau, self.added = sdr, s2dr, tau, added
        self.teacher = Teacher(su, si, teacher_tau or tau, floor, confidence, memory, topk) if sdr else None
        self._second = weakref.WeakKeyDictionary()  # model -> graph of R'

    def second_graph(self, model):
        """The model's graph over R' = R + added, built once per model."""
        if model not in self._second:
            self._second[model] = _grown_graph(model, self.added)
        return self._second[model]

    def forward(self, model, users, pos, neg) -> dict:
        """Named loss terms of one batch; arguments as in `BPR`."""
        terms, (u, i) = self.terms(model, users, pos, neg)
        if self.sdr:
            _check_size(self.teacher, len(u), len(i))
            distinct = torch.unique(users)
            terms['sdr'] = self.sdr * sdr_loss(
                u[distinct], i, self.teacher.rows(distinct), self.teacher.weight[distinct], self.tau
            )
        if self.s2dr:
            terms['s2dr'] = self.s2dr * s2dr_loss((u, i), model(self.second_graph(model)), users, pos, self.tau)
        return terms

    def report(self) -> dict:
        """Settings and facts for the protocol card."""
        facts = {'objective': 'ProMax', 'sdr': self.sdr, 's2dr': self.s2dr, 'tau': self.tau}
        if self.added is not None:
            facts['added_interactions'] = int(self.added.nnz)
        if self.teacher is not None:
            facts['teacher'] = teacher_report(self.teacher)
        return facts


# %% [markdown]
# Any base with any objective, in a few lines: the loop below is the whole matrix of combinations.

# %%
import scipy.sparse as sp

from promax_nb.models.bases import GCCF, LightGCN, MF, SimGCL

r, extra = sp.random(50, 30, 0.2, random_state=0, format='csr'), sp.random(50, 30, 0.02, random_state=1, format='csr')
users, pos, neg = torch.randint(50, (64,)), torch.randint(30, (64,)), torch.randint(30, (64,))
for base in (MF, LightGCN, GCCF, SimGCL):
    model = base(r, dim=8)
    terms = ProMax(su, si, extra, sdr=0.5, s2dr=0.1)(model, users, pos, neg)
    sum(terms.values()).backward()
    assert torch.isfinite(model.user.grad).all() and {'bpr', 'sdr', 's2dr'} <= set(terms)
    print(f'{base.__name__:9}', {k: round(float(v.detach()), 3) for k, v in terms.items()})

# %% [markdown]
# What is missing is said before training starts, not after an hour of it:

# %%
for wrong in (
    lambda: ProMax(sdr=0.5, s2dr=0),
    lambda: ProMax(su, si),
    lambda: ProMax(su, torch.randn(30, 5), s2dr=0),
    lambda: ProMax(su[:40], si, s2dr=0)(MF(r), users, pos, neg),
):
    try:
        wrong()
        raise AssertionError('should have refused')
    except ValueError as e:
        print('-', e)
