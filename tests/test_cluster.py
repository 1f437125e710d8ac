"""`engine='ray'`: the same rows as without, nothing stored is asked again after a death, never more than the budget.

The first part runs what is ours against a stand-in for Ray, in this process. The second (PROMAX_FULL=1, `make
test-full`) starts a real cluster of two processes on this machine and kills one of them, then the script itself.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from stage import CANARY, Echo

from promax_nb.data import cluster
from promax_nb.lettingo.tiny import shipped_writer
from promax_nb.profiles.answers import Answer
from promax_nb.profiles.ask import ask, store_frame
from promax_nb.profiles.keeper import Asker, Deliverer, Keeper
from promax_nb.profiles.llm import chat
from promax_nb.profiles.purse import Purse
from promax_nb.profiles.replies import LLMError
from promax_nb.profiles.vllm import vllm
from promax_nb.profiles.write import write
from promax_nb.retrieval.embed import Reader, encode, open_vectors, text_key
from promax_nb.retrieval.encoders import find_encoder, model_elsewhere

PRICE = (1000.0, 1000.0)
PROMPTS = [f'question {number:03d}' for number in range(60)]


# ---------------------------------------------------------------- a stand-in for Ray


class Blocks:
    """A dataset: blocks of rows. `deaths` blocks are handled in part, then given to another process."""

    def __init__(self, blocks, deaths):
        self.blocks, self.deaths, self.context = blocks, deaths, types.SimpleNamespace()

    def map_batches(self, kind, fn_constructor_kwargs, compute, batch_size, batch_format, **asked):
        assert batch_size is None and batch_format == 'numpy'
        made = cloudpickle.dumps(fn_constructor_kwargs)  # what cannot be sent fails here as it does there
        self.handle = lambda block: kind(**cloudpickle.loads(made))(block)
        return self

    def iter_batches(self, prefetch_batches, batch_size, batch_format):
        for number, rows in enumerate(self.blocks):
            block = {name: np.array([row[name] for row in rows]) for name in rows[0]}
            if number < self.deaths:
                self.handle({name: column[: len(rows) // 2] for name, column in block.items()})
            yield self.handle(block)


class Anywhere:
    """An object in another process: calls are sent as bytes, answers come back when they are fetched."""

    found = {}

    def __init__(self, kind, settings):
        self.number = len(self.found)
        self.found[self.number] = kind(**cloudpickle.loads(cloudpickle.dumps(settings)))

    def __getattr__(self, name):
        if name.startswith('_'):
            raise AttributeError(name)
        method = getattr(self.found[self.number], name)
        return types.SimpleNamespace(remote=lambda *args: method(*cloudpickle.loads(cloudpickle.dumps(args))))


@pytest.fixture
def stand_in(monkeypatch):
    """Ray's names, as far as we use them; `.deaths` says how many blocks are begun twice."""
    ray, known = types.ModuleType('ray'), {'CPU': 2.0}
    ray.deaths = 1

    def blocks_of(rows, override_num_blocks):
        return Blocks([list(part) for part in np.array_split(np.array(rows, object), override_num_blocks)], ray.deaths)

    ray.data = types.ModuleType('ray.data')
    ray.data.from_items, ray.data.ActorPoolStrategy = blocks_of, lambda **kw: types.SimpleNamespace(**kw)
    ray.is_initialized, ray.cluster_resources, ray.get, ray.kill = lambda: True, lambda: known, lambda x: x, id
    ray.get_runtime_context = lambda: types.SimpleNamespace(get_node_id=lambda: 'here')
    ray.cloudpickle, ray.exceptions = cloudpickle, types.SimpleNamespace(RayError=ZeroDivisionError)
    ray.client = types.SimpleNamespace(is_connected=lambda: False)
    ray.util = types.SimpleNamespace(client=types.SimpleNamespace(ray=ray.client))
    ray.remote = lambda kind: types.SimpleNamespace(
        options=lambda **asked: types.SimpleNamespace(remote=lambda **settings: Anywhere(kind, settings))
    )
    places = types.ModuleType('ray.util.scheduling_strategies')
    places.NodeAffinitySchedulingStrategy = lambda node, soft: node
    modules = {'ray': ray, 'ray.data': ray.data, 'ray.util.scheduling_strategies': places}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return ray


class Plain:
    """A writer that can be sent; what it was asked is kept by the class."""

    name, params, asked = 'plain', {'max_tokens': 10}, []

    def __call__(self, prompt):
        self.asked.append(prompt)
        if prompt.endswith('7'):
            raise KeyError('Bearer ' + 'abcdef123456')
        return f'{prompt}!' if not prompt.endswith('9') else ''


@pytest.fixture
def plain():
    Plain.asked.clear()
    return Plain()


def longer(answer):
    """A check, as `ask` takes one."""
    return f'checked {answer}'


def test_the_same_table_as_without_an_engine(stand_in, plain, tmp_path):
    frame = pd.DataFrame({'id': range(100, 160), 'prompt': PROMPTS, 'sample': [0, 1] * 30})
    frame = pd.concat([frame, frame[:5]])
    here = ask(plain, frame, tmp_path / 'here.db', check=longer, patience=None)
    asked, plain.asked[:] = Counter(plain.asked), []
    there = ask(plain, frame, tmp_path / 'there.db', check=longer, patience=None, engine='ray', workers=3)
    pd.testing.assert_frame_equal(here, there)
    assert Counter(plain.asked) == asked  # each once, though a process died in the middle of a block
    kept = ['key', 'model', 'prompt', 'params', 'sample', 'answer']
    stores = [store_frame(tmp_path / f'{name}.db')[kept].sort_values('key') for name in ('here', 'there')]
    pd.testing.assert_frame_equal(*[table.reset_index(drop=True) for table in stores])
    plain.asked.clear()
    again = ask(plain, frame, tmp_path / 'there.db', check=longer, patience=None, engine='ray')
    assert len(plain.asked) == 12 and (again['status'] == there['status']).all()  # those that had no answer
    assert 'abcdef' not in ' '.join(there['error'].dropna())


def test_profiles_are_written_by_a_server_as_without(stand_in, serve, tmp_path):
    server, prompts = serve(), pd.DataFrame({'id': range(20), 'prompt': PROMPTS[:20]})
    llm = chat('m', base_url=server.url)
    here = write(llm, prompts, tmp_path / 'here.db')
    there = write(llm, prompts, tmp_path / 'there.db', engine='ray')
    pd.testing.assert_frame_equal(here, there)
    assert len(server.requests) == 40 and CANARY.encode() not in cloudpickle.dumps(llm)


@pytest.mark.parametrize('deaths', [0, 3])
def test_budget_counts_what_a_dead_process_has_spent(stand_in, plain, tmp_path, deaths):
    stand_in.deaths = deaths
    spent = 0.0
    for budget in (0.4, 0.8):
        out = ask(plain, PROMPTS, tmp_path / 's.db', price=PRICE, budget=budget, engine='ray', patience=None)
        spent += out['cost'].sum()
        with Purse(budget, tmp_path / 's.db') as purse:
            assert spent <= purse.spent <= budget and purse.left < 0.1  # one question may cost .055
    assert out.loc[out['status'] != 'ok', 'error'].str.startswith('budget').any()


def test_a_lost_reservation_is_spent_and_nobody_waits_for_it(tmp_path):
    keeper = Keeper(Plain(), tmp_path / 's.db', (0.12, tmp_path / 's.db', 'budget'), price=PRICE)
    jobs = [[(f'k{number}', f'question {number}', None)] for number in range(3)]
    assert keeper.begin(jobs[0]) and keeper.begin(jobs[1])
    waiting = threading.Thread(target=keeper.begin, args=(jobs[2],), daemon=True)
    waiting.start()  # .016 are left, and .104 under way: those may come back
    time.sleep(0.05)
    assert waiting.is_alive()
    keeper.take([job[0][0] for job in jobs[:2]])  # another process has these two now
    waiting.join(5)
    assert not waiting.is_alive() and 'budget' in keeper.told()[1] and not keeper.take([])
    assert keeper.gate.purse.spent == pytest.approx(0.104)


def test_threads_and_processes_together_never_exceed_the_budget(plain, tmp_path):
    keeper = Keeper(plain, tmp_path / 's.db', (0.5, tmp_path / 's.db', 'budget'), price=PRICE)
    askers = [Asker(plain, lambda name, *args: getattr(keeper, name)(*args), workers=4) for _ in range(3)]
    blocks = [{'key': PROMPTS[start::3], 'prompt': PROMPTS[start::3]} for start in range(3)]
    threads = [threading.Thread(target=asker, args=(block,)) for asker, block in zip(askers, blocks, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.4 < keeper.gate.purse.spent <= 0.5 and len(plain.asked) < 60


def test_every_answer_is_on_the_disk_when_its_process_goes_on(plain, tmp_path):
    keeper, lag = Keeper(plain, tmp_path / 's.db'), []

    def to_keeper(name, *args):
        came = getattr(keeper, name)(*args)
        if name == 'done':
            lag.append(args[1][0][0] in set(store_frame(tmp_path / 's.db')['key']))
        return came

    Asker(plain, to_keeper, workers=5)({'key': PROMPTS[:7], 'prompt': PROMPTS[:7]})
    assert lag == [True] * 7


def test_a_machine_without_a_key_closes_the_gate_at_once(stand_in, monkeypatch, tmp_path):
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    out = ask(chat('m', base_url='https://example.invalid/v1'), PROMPTS, tmp_path / 's.db', engine='ray', workers=1)
    assert (out['status'] == 'failed').all() and 'OPENAI_API_KEY' in out['error'][0]
    assert out['error'][5].startswith('not asked, since every request would fail')


def test_patience_ends_a_hopeless_run(stand_in, plain, tmp_path):
    prompts = [f'{number}9' for number in range(200)]
    out = ask(plain, prompts, tmp_path / 's.db', engine='ray', workers=2)
    assert 20 <= len(plain.asked) <= 22 and (out['status'] == 'failed').all() and 'patience' in out['error'][199]


def test_a_batch_writer_gets_batches(stand_in, plain, tmp_path):
    out = ask(InBatches(), PROMPTS, tmp_path / 's.db', engine='ray', workers=2)
    assert out['answer'].str.fullmatch(r'question \d+ of [1-4]').all()
    assert out['answer'].str.endswith('of 4').sum() >= 40


class InBatches:
    name, batch = 'in batches', 4

    def __call__(self, prompt):
        return f'{prompt} of 1'

    def complete_many(self, prompts, samples):
        return [Answer(f'{prompt} of {len(prompts)}') for prompt in prompts]


# ---------------------------------------------------------------- what is refused, in a sentence


@pytest.mark.parametrize(
    'llm, kw, text',
    [
        (Plain(), {'engine': 'spark', 'store': 's.db'}, "'ray', or None"),
        (Plain(), {'engine': 'ray'}, "pass store='kept.db'"),
        (Plain(), {'engine': 'ray', 'store': 's.db', 'purse': Purse(1.0), 'price': PRICE}, r'Purse\(budget, store\)'),
        (vllm('m/x'), {}, "pass engine='ray'"),
        (vllm('m/x'), {'engine': 'ray', 'store': 's.db', 'price': PRICE}, 'not paid by the token'),
        (chat('m', headers={'X-Key': CANARY}), {'engine': 'ray', 'store': 's.db'}, 'headers never leave'),
        (chat('m', base_url='https://me:secret88@e.invalid/v1'), {'engine': 'ray', 'store': 's.db'}, 'a password'),
        (Echo(), {'engine': 'ray', 'store': 's.db'}, 'cannot be sent .*vllm'),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_asked(stand_in, tmp_path, llm, kw, text):
    kw = kw | ({'store': tmp_path / 's.db'} if 'store' in kw else {})
    with pytest.raises(ValueError, match=text) as refused:
        ask(llm, ['a'], **kw)
    assert CANARY not in str(refused.value) and 'secret88' not in str(refused.value)


def test_without_ray_there_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'ray', None)
    for call in (
        lambda: ask(Plain(), ['a'], tmp_path / 's.db', engine='ray'),
        lambda: encode(['a'], cache=tmp_path, engine='ray'),
        lambda: vllm('m/x').config(),
    ):
        with pytest.raises(ImportError, match=r"needs Ray: pip install 'promax_nb\[ray\]'"):
            call()
    with pytest.raises(ValueError, match="pass cache='kept.db'"):
        encode(['a'], engine='ray')


def test_a_remote_client_is_refused(stand_in):
    stand_in.client.is_connected = lambda: True
    with pytest.raises(ValueError, match='ray job submit'):
        cluster.ray_cluster()


# ---------------------------------------------------------------- vectors


class Counts:
    """A text model that can be sent; what it was given is kept by the class."""

    name, seen = 'counts', []

    def encode(self, texts):
        self.seen.extend(texts)
        return [[len(text), text.count('e'), text.count('7')] for text in texts]


def test_vectors_are_the_same_and_kept(stand_in, tmp_path):
    texts = [*PROMPTS, *PROMPTS[:5], 'x' * 50]
    here, Counts.seen[:] = encode(texts, Counts(), cache=tmp_path / 'here.db'), []
    stand_in.deaths = 0
    there = encode(texts, Counts(), cache=tmp_path / 'there.db', engine='ray', batch_size=2)
    assert (here == there).all() and Counter(Counts.seen) == Counter(set(texts))
    Counts.seen.clear()
    assert (encode([*texts, 'new'], Counts(), cache=tmp_path / 'there.db', engine='ray')[:-1] == there).all()
    assert Counts.seen == ['new']


def test_what_came_with_the_library_is_found_on_every_machine(stand_in, tmp_path):
    texts = ['enjoys slow crime stories by the sea', 'cooks every weekend']
    assert (encode(texts, 'static', cache=tmp_path / 'v.db', engine='ray') == encode(texts, 'static')).all()
    assert model_elsewhere(find_encoder()) is None and model_elsewhere(find_encoder('static')) == 'static'
    assert model_elsewhere(find_encoder(tmp_path)) == tmp_path
    with pytest.raises(ValueError, match='install the same on all'):
        Reader('folder:another', 16, model='static')


# ---------------------------------------------------------------- vLLM, as far as it goes without an engine


def test_settings_become_what_the_engine_reads():
    cold, warm = vllm('models/m', max_new_tokens=9), vllm('models/m', temperature=0.7, top_p=0.9, seed=3)
    row = {'key': 'k', 'prompt': 'tea?', 'sample': 1}
    assert cold.before(row)['sampling_params'] == {'max_tokens': 9, 'temperature': 0.0}
    seeds = {warm.before(row | {'sample': sample})['sampling_params']['seed'] for sample in (0, 1, 2)}
    assert len(seeds) == 3 and warm.before(row)['sampling_params']['top_p'] == 0.9
    assert cold.before(row)['messages'] == [{'role': 'user', 'content': 'tea?'}]
    assert 'messages' not in vllm('models/m', chat_template_stage=False).before(row)
    with pytest.raises(LLMError, match="engine='ray'"):
        cold('tea?')


class Engine:
    """What vLLM would do to rows, for `VLLM.stage`: every prompt answered, those with a 7 in error."""

    def __init__(self, llm):
        self.llm = llm

    def __call__(self, row):
        row = row | self.llm.before(row)
        if '7' in row['question']:
            return row | {'__inference_error__': 'too long', 'answer': None, 'read': 0, 'written': 0, 'finish': None}
        row |= {'generated_text': f'on {row["question"]}', 'num_input_tokens': 3, 'num_generated_tokens': 2}
        return self.llm.after(row) | {'__inference_error__': ''}


def test_what_an_engine_answers_is_kept(plain, tmp_path):
    llm, keeper = vllm('models/m', max_new_tokens=9), Keeper(vllm('models/m'), tmp_path / 's.db')
    rows = [Engine(llm)({'key': prompt, 'prompt': prompt, 'sample': np.int64(1)}) for prompt in PROMPTS]
    names = ['key', 'question', 'sample', 'answer', 'read', 'written', 'finish', '__inference_error__']
    Deliverer(lambda name, *args: getattr(keeper, name)(*args))({name: [row[name] for row in rows] for name in names})
    outcomes, _ = keeper.told()
    assert outcomes['question 001'].answer == 'on question 001' and outcomes['question 001'].completion_tokens == 2
    assert outcomes['question 017'].error == 'too long' and len(outcomes) == 60
    assert store_frame(tmp_path / 's.db')['sample'].unique().tolist() == [1]


# ---------------------------------------------------------------- a real cluster, two processes on this machine

REAL = pytest.mark.skipif(
    not os.environ.get('PROMAX_FULL') or not find_spec('ray'),
    reason="REDUCED RUN: make test-full (PROMAX_FULL=1, pip install 'promax_nb[ray]') starts a real cluster",
)
SCRIPT = '''
import sys
import ray
from test_cluster import finish_on_ray
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=10**8, _node_ip_address='127.0.0.1')
what, url, store = sys.argv[1:]
print('ready', ray._private.worker._global_node.get_session_dir_path(), flush=True)
finish_on_ray(what, url, store)
ray.shutdown()
'''


class Slow(Counts):
    """A text model that writes down what it reads, in a file that outlives it."""

    def __init__(self, file):
        self.file = file

    def encode(self, texts):
        time.sleep(0.1)
        with open(self.file, 'a') as file:
            file.write(''.join(f'{text}\n' for text in texts))
        return [[len(text), text.count('e'), text.count('7')] for text in texts]


def finish_on_ray(what, url, store):
    """What the script does once the cluster is there."""
    if what == 'ask':
        table = ask(chat('m', base_url=url, max_tokens=20, max_retries=0), MANY, store, engine='ray', **HOW)
        table.to_pickle(f'{store}.table')
    if what == 'encode':
        np.save(f'{store}.npy', encode(MANY, Slow(f'{store}.read'), cache=store, batch_size=1, engine='ray'))
    if what == 'vllm':
        import ray.data.llm

        llm = vllm(url, concurrency=1, batch_size=16)
        real = ray.data.llm.build_processor(llm.config(), preprocess=llm.before, postprocess=llm.after)
        llm.stage = lambda data: data.map(Engine(llm), concurrency=1)  # in the place of an engine
        table = ask(llm, MANY, store, engine='ray', patience=None)
        table.to_pickle(f'{store}.table')
        Path(f'{store}.stages').write_text(json.dumps(real.list_stage_names()))


MANY = [f'question {number:03d}' for number in range(240)]
HOW = dict(workers=2, price=PRICE, budget=20.0, progress=False)


class Script:
    """The script, in a process group of its own, with everything that Ray starts for it."""

    def __init__(self, what, url, store, log):
        keep = {'RAY_USAGE_STATS_ENABLED': '0', 'RAY_raylet_start_wait_time_s': '180', 'PROMAX_TEST_RUN': str(store)}
        paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
        environment = os.environ | keep | {'PYTHONPATH': os.pathsep.join(paths), 'RAY_TMPDIR': '/tmp'}
        environment.pop('RAY_ADDRESS', None)
        self.mark, self.log = f'PROMAX_TEST_RUN={store}'.encode(), log
        command = [sys.executable, '-c', SCRIPT, what, url, str(store)]
        with open(log, 'a') as file:
            self.child = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)

    def processes(self, name):
        """Ids of its processes whose command begins so."""
        found = []
        for folder in Path('/proc').glob('[0-9]*'):
            try:
                command, environment = (folder / 'cmdline').read_bytes(), (folder / 'environ').read_bytes()
            except OSError:
                continue
            if command.startswith(name) and self.mark in environment.split(b'\0'):
                found.append(int(folder.name))
        return found

    def wait_until(self, there, seconds=240):
        """Wait for something that the script brings about."""
        end = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < end and self.child.poll() is None, Path(self.log).read_text()[-3000:]
            time.sleep(0.01)

    def end(self, seconds=240):
        """Wait until it has ended well."""
        assert self.child.wait(seconds) == 0, Path(self.log).read_text()[-3000:]

    def kill(self):
        """kill -9 of the script alone; wait until what it had started is gone too."""
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        end = time.monotonic() + 60
        while self.processes(b'') and time.monotonic() < end:
            time.sleep(0.1)

    def close(self):
        for process in {*self.processes(b''), *([self.child.pid] if self.child.poll() is None else [])}:
            os.kill(process, signal.SIGKILL)


@pytest.fixture
def script(tmp_path):
    scripts = []

    def start(what, url, store):
        scripts.append(Script(what, url, store, tmp_path / 'log'))
        return scripts[-1]

    yield start
    for one in scripts:
        one.close()


@REAL
def test_a_killed_process_and_a_killed_script_cost_what_was_under_way_full(serve, script, tmp_path):
    server, store = serve(delay=0.1), tmp_path / 's.db'
    first = script('ask', server.url, store)
    first.wait_until(lambda: len(server.served) >= 40)
    askers = first.processes(b'ray::MapWorker')
    assert len(askers) == 2
    os.kill(askers[0], signal.SIGKILL)
    gone = len(server.served)
    first.wait_until(lambda: len(server.served) >= gone + 60)
    first.kill()
    assert not first.processes(b'')
    stored, before = set(store_frame(store)['prompt']), len(server.requests)
    assert 80 < len(stored) < 240
    assert before - len(set(server.requests)) <= HOW['workers']  # under way when a process died
    assert before - len(stored) <= 3 * HOW['workers']  # and when the script did

    script('ask', server.url, store).end()
    assert not stored & set(server.requests[before:])  # nothing that was stored is asked again
    assert len(server.requests) - len(MANY) <= 3 * HOW['workers']
    with Purse(HOW['budget'], store) as purse:
        assert len(server.requests) * 0.015 <= purse.spent <= HOW['budget']
    here = ask(chat('m', base_url=server.url, max_tokens=20), MANY, tmp_path / 'here.db')
    there = pd.read_pickle(f'{store}.table')
    same = ['id', 'prompt', 'answer', 'status', 'error', 'model', 'key', 'prompt_tokens', 'completion_tokens', 'finish']
    pd.testing.assert_frame_equal(here[same], there[same])

    written = [tmp_path / 'log', *tmp_path.glob('s.db*')]
    for line in (tmp_path / 'log').read_text().splitlines():
        if line.startswith('ready '):
            written += [path for path in Path(line.split()[1]).rglob('*') if path.is_file()]
    assert len(written) > 20 and not [path for path in written if CANARY.encode() in path.read_bytes()]


@REAL
def test_vectors_survive_a_killed_process_and_a_killed_script_full(script, tmp_path):
    store, read = tmp_path / 'v.db', tmp_path / 'v.db.read'

    def texts_read():
        return read.read_text().splitlines() if read.exists() else []

    first = script('encode', '-', store)
    first.wait_until(lambda: len(texts_read()) >= 40)
    os.kill(first.processes(b'ray::MapWorker')[0], signal.SIGKILL)
    gone = len(texts_read())
    first.wait_until(lambda: len(texts_read()) >= gone + 40)
    first.kill()
    before = texts_read()
    with open_vectors(store) as kept:
        keys = set(kept.frame('promax_vectors')['text'])
    stored = {text for text in before if text_key(text) in keys}
    assert 40 < len(stored) < 240
    script('encode', '-', store).end()
    assert not stored & set(texts_read()[len(before) :])
    assert (np.load(f'{store}.npy') == encode(MANY, Counts())).all()


@REAL
def test_the_pipeline_of_vllm_is_built_and_its_answers_are_kept_full(script, tmp_path):
    script('vllm', str(shipped_writer()), tmp_path / 's.db').end()
    stages = json.loads((tmp_path / 's.db.stages').read_text())
    assert stages == ['ChatTemplateStage', 'TokenizeStage', 'vLLMEngineStage', 'DetokenizeStage']
    table = pd.read_pickle(tmp_path / 's.db.table')
    failed = table['prompt'].str.contains('7')
    assert (table['status'] == np.where(failed, 'failed', 'ok')).all()
    assert (table['answer'][~failed] == 'on ' + table['prompt'][~failed]).all()


@pytest.mark.skipif(not find_spec('ray') or not find_spec('aiohttp'), reason='REDUCED RUN: the extra ray is not there')
def test_ray_takes_our_settings_and_refuses_wrong_ones():
    config = vllm('models/m', engine_kwargs={'max_model_len': 4096}, concurrency=2, batch_size=64).config()
    assert (config.model_source, config.concurrency, config.batch_size) == ('models/m', 2, 64)
    assert config.engine_kwargs['max_model_len'] == 4096
    for wrong in ({'concurency': 2}, {'batch_size': 'many'}):
        with pytest.raises(ValueError, match='Ray does not take'):
            vllm('models/m', **wrong).config()
