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
# # Extra interactions
#
# > A few added edges for sparse users, and where every one of them came from.

# %%
#| default_exp retrieval.augment

# %%
#| export
import re

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from promax_nb.data.storage import few
from promax_nb.retrieval.search import candidates, level_shift, training_matrix
from promax_nb.retrieval.rerank import check_options, rerank

# %%
from promax_nb.data.bookshop import toy_data
from promax_nb.retrieval.embed import whiten


# %% [markdown]
# The parts are there: similar users, candidates, how many of them a user of this sparseness gets, and perhaps a language model that names the best. This chapter puts them together and hands on two things. The first is a
# sparse matrix that holds *only the added edges*; whoever wants the second graph adds it to the training matrix. The second is the **provenance**: one row for every candidate that was considered, whether it became an
# edge or not, with where it came from and why it was dropped. An edge whose origin nobody can name does not belong in a graph.
#
# ## A model among the candidates
#
# Without a model the order of retrieval decides. With one, the users who have more candidates than places are asked about: the model reads the profile and the candidates, in an order that chance decides, and names the
# best. A user with no more candidates than places leaves nothing to choose, so no question is asked. Where the answer cannot be used, the order of retrieval stands, and that is noted.

# %%
#| export
def _profile_texts(
    profiles,  # list of str | DataFrame with a column profile | None
    name,  # 'user_profiles' | 'item_profiles'
    n,  # int
) -> list:  # n str; empty ones are allowed, missing ones are not
    """Profiles as a language model will read them."""
    if profiles is None:
        raise ValueError(
            f'the llm reads texts: pass {name}, one per id in id order, or llm=None to keep the retrieval order.'
        )
    if hasattr(profiles, 'columns') and 'profile' in profiles.columns:
        profiles = profiles['profile']
    texts = [profiles] if isinstance(profiles, str) else list(profiles)
    if len(texts) != n:
        what = name.split('_')[0]
        raise ValueError(
            f'{name} has {len(texts)} rows but data has {n} {what}s: pass one profile per id, in id order.'
        )
    odd = [row for row, text in enumerate(texts) if not isinstance(text, str)]
    if odd:
        raise ValueError(
            f"{name} holds {len(odd)} entries that are not texts (ids {few(odd)}): "
            "write these profiles or pass '' for unknown."
        )
    return texts


def _chosen(
    found,  # DataFrame from `candidates`; those of one user stand together
    shift,  # (M,) int: how many edges each user is to get
    llm,  # callable
    user_profiles,  # M str
    item_profiles,  # N str
    store,  # path | Store | None
    seed,  # int: order in which the llm sees the candidates
    options,  # dict: passed on to `rerank`
) -> tuple:  # (rows of found,) place in the order of the llm, 1 = best, 0 = not named; dict user -> row of `rerank`
    """The llm's order of the candidates of every user who has more of them than places."""
    place, item = found['rank'].to_numpy().copy(), found['item'].to_numpy()
    users, start, size = np.unique(found['user'].to_numpy(), return_index=True, return_counts=True)
    asked = np.flatnonzero(size > shift[users])
    if not len(asked):
        return place, {}
    mixed = [start[k] + np.random.default_rng([seed, users[k]]).permutation(size[k]) for k in asked]
    users = users[asked]
    readers = [user_profiles[user] for user in users]
    profile_of = np.array(item_profiles, dtype=object)
    shown = [profile_of[item[rows]].tolist() for rows in mixed]
    answers = rerank(llm, readers, shown, shift[users], users, store=store, **options)
    for rows, answer in zip(mixed, answers.itertuples(), strict=True):
        if not answer.fallback:
            place[rows] = 0
            place[rows[answer.ranked]] = np.arange(1, len(answer.ranked) + 1)
    return place, {answer.id: answer for answer in answers.itertuples()}


# %%
shelf = pd.DataFrame({'user': [0, 0, 0, 1], 'item': [4, 2, 3, 2], 'rank': [1, 2, 3, 1]})


def sea_lover(prompt):
    return next(line.split(':')[0] for line in prompt.split('\n') if line[:1].isdigit() and 'sea' in line)


books = ['Enjoys tea.', 'Enjoys bread.', 'Enjoys courtrooms.', 'Enjoys the sea.', 'Enjoys trains.']
place, answers = _chosen(shelf, np.array([1, 1]), sea_lover, ['Enjoys ships.', 'Enjoys rain.'], books, None, 0, {})
print(shelf.assign(place=place))

# %%
assert place.tolist() == [0, 0, 1, 1] and list(answers) == [0]  # the second reader left nothing to choose


# %% [markdown]
# ## Counting what happened
#
# A user may get fewer edges than the shift asks for: when similar users hold too few new items, when `n_candidates` is smaller than the shift, or when the model named fewer than it was asked for. Nothing is invented to
# fill up, but everything is counted.

# %%
#| export
def _summary(
    train,  # csr (M, N)
    shift,  # (M,) int
    why,  # DataFrame: the provenance
    answers,  # dict user -> row of `rerank`
    llm,  # callable | None
) -> dict:  # plain numbers and texts
    """Counts of what happened."""
    given = np.bincount(why['user'][why['kept']], minlength=len(shift))
    had = np.bincount(why['user'], minlength=len(shift))
    wanted, fallbacks = shift > 0, [answer for answer in answers.values() if answer.fallback]
    reasons = pd.Series([re.sub(r'\d+', '#', answer.problems) for answer in fallbacks], dtype=object).value_counts()
    return {
        'users': len(shift),
        'users_wanting': int(wanted.sum()),
        'users_lifted': int((given > 0).sum()),
        'users_short': int((wanted & (given < shift)).sum()),
        'users_without_candidates': int((wanted & (had == 0)).sum()),
        'edges': int(train.nnz),
        'edges_wanted': int(shift.sum()),
        'edges_added': int(given.sum()),
        'candidates': len(why),
        'ranked_by': 'retrieval' if llm is None else str(getattr(llm, 'name', None) or getattr(llm, '__name__', 'llm')),
        'asked': sum(bool(answer.asked) for answer in answers.values()),
        'fallbacks': len(fallbacks),
        'incomplete': sum(not answer.fallback and bool(answer.problems) for answer in answers.values()),
        'fallback_reasons': {str(reason)[:200]: int(count) for reason, count in reasons.head(10).items()},
    }


# %% [markdown]
# ## Augment
#
# All steps together. `template()` writes summaries and cannot rank; it counts as no model at all, and the retrieval order decides.

# %%
#| export
def augment(
    data,  # RecData, or the (M, N) training matrix; only training interactions are read
    users,  # (M, d) user vectors
    items,  # (N, d) item vectors, in the same space
    llm=None,  # callable that chooses among the candidates; None: retrieval order
    user_profiles=None,  # M texts or a table with a column 'profile'; needed with an llm
    item_profiles=None,  # N texts or a table with a column 'profile'; needed with an llm
    k_users=20,  # similar users to look at
    n_candidates=20,  # candidates for each user: no user gets more edges than this
    history_weight=0.5,  # 0 scores candidates by the user's profile, 1 by the items the user has
    store=None,  # SQLite file that keeps every answer of the llm
    seed=0,  # order in which the llm sees the candidates
    **options,  # passed on to `rerank` and `ask`: max_chars, workers, price, budget, ...
) -> tuple:  # added (M, N) csr float32, only new edges; provenance DataFrame, one row per user and candidate
    """Extra interactions for sparse users, and where each came from (ProMax, augmentation)."""
    check_options(options)
    train = training_matrix(data)
    if getattr(llm, 'name', None) == 'template':
        llm = None
    if llm is not None:
        user_profiles = _profile_texts(user_profiles, 'user_profiles', train.shape[0])
        item_profiles = _profile_texts(item_profiles, 'item_profiles', train.shape[1])
    shift = level_shift(np.diff(train.indptr))
    why = candidates(train, users, items, k_users, n_candidates, history_weight, only=np.flatnonzero(shift))
    order, answers = why['rank'].to_numpy(), {}
    if llm is not None:
        order, answers = _chosen(why, shift, llm, user_profiles, item_profiles, store, seed, options)
    why = why.rename(columns={'rank': 'retrieval_rank'}).assign(shift=shift[why['user'].to_numpy()], order=order)
    why['kept'] = (order > 0) & (order <= why['shift'])
    why['dropped'] = np.select([why['kept'], order == 0], ['', 'not in ranking'], 'beyond shift')
    why['fallback'] = np.isin(why['user'], [user for user, answer in answers.items() if answer.fallback])
    why.attrs['summary'] = _summary(train, shift, why, answers, llm)
    kept = why[why['kept']]
    added = csr_matrix((np.ones(len(kept), np.float32), (kept['user'], kept['item'])), shape=train.shape)
    return added, why


# %%
data = toy_data(200, 150, seed=0)
truth = data.extras['truth']
su, si = whiten(
    truth['user_weights'], truth['item_attributes'].astype(float) - truth['item_attributes'].mean(0), dim=16
)

# %% [markdown]
# In the bookshop, without a model:

# %%
extra, why = augment(data, su, si, history_weight=0)
print(why.attrs['summary'])
why[['user', 'item', 'retrieval_rank', 'score', 'via', 'shift', 'order', 'kept', 'dropped']].head(6)

# %% [markdown]
# The promises, checked: nobody gets more than the shift says, no added edge was there before, and the two halves of the result agree.

# %%
shift = level_shift(np.diff(data.train.indptr))
assert (np.diff(extra.indptr) <= shift).all()
assert extra.multiply(data.train).nnz == 0
assert extra.nnz == why['kept'].sum() == why.attrs['summary']['edges_added']
assert (why['kept'] == (why['dropped'] == '')).all()


# %% [markdown]
# And with a model, one that is wrong on purpose every third time. It reads the bookshop's own blurbs and picks the candidates that share most words with the user's profile. The fall-backs appear in the summary, one by one, and every one of these users still gets edges.

# %%
def words(text):
    return set(re.findall('[a-z]{5,}', text.lower()))


def librarian(prompt):
    lines = dict(line.split(': ', 1) for line in prompt.split('\n') if ': ' in line)
    if len(lines['user']) % 3 == 0:
        return 'All of them are lovely.'
    return ', '.join(
        sorted((n for n in lines if n.isdigit()), key=lambda n: -len(words(lines[n]) & words(lines['user'])))
    )


likes = [' and '.join(np.array(truth['attributes'])[row]) for row in truth['user_likes']]
chosen, told = augment(
    data, su, si, librarian, ['Enjoys ' + text + '.' for text in likes], data.items['text'], history_weight=0
)
summary = told.attrs['summary']
print({k: summary[k] for k in ('users_lifted', 'edges_added', 'asked', 'fallbacks', 'fallback_reasons')})
told.loc[told['order'] <= 3, ['user', 'item', 'retrieval_rank', 'shift', 'order', 'kept', 'dropped', 'fallback']].head(
    6
)

# %%
assert 0 < summary['fallbacks'] < summary['asked'] and sum(summary['fallback_reasons'].values()) == summary['fallbacks']
assert (told[told['fallback']]['order'] == told[told['fallback']]['retrieval_rank']).all()
again, _ = augment(
    data, su, si, librarian, ['Enjoys ' + text + '.' for text in likes], data.items['text'], history_weight=0
)
assert (again != chosen).nnz == 0  # the same every time

# %% [markdown]
# ## When it cannot work
#
# Rows that do not match ids are the most expensive mistake in this business, because everything still runs and nothing looks odd. So they are looked for, and found:

# %%
attempts = {
    'one user too few': lambda: augment(data, su[:-1], si),
    'another width': lambda: augment(data, su[:, :8], si),
    'a broken vector': lambda: augment(data, su, np.where(np.arange(len(si))[:, None] == 3, np.nan, si)),
    'an llm without texts': lambda: augment(data, su, si, librarian),
    'profiles missing': lambda: augment(data, su, si, librarian, likes[:10], likes[:10]),
    'a strange weight': lambda: augment(data, su, si, history_weight=2),
    'a misspelt option': lambda: augment(data, su, si, k_user=5),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except ValueError as e:
        print(f'{name}: {e}')
    else:
        raise AssertionError(name)

# %% [markdown]
# The added edges are a suggestion made by texts. Whether they help is decided where it must be: by training with and without them, on data that nobody in this chapter has seen.
