"""Questions at a terminal: what to show, what is like it, what somebody new would like; odd ids and refusals."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from promax_nb.cli import main
from promax_nb.recommend.runs import open_recommender

SENTENCE = 'I love slow crime stories by the sea, no romance'


@pytest.fixture(scope='module')
def run(odd_run):
    return str(odd_run[0])


@pytest.fixture(scope='module')
def served(run):
    return open_recommender(run)


@pytest.fixture
def ask(run, capsys):
    """(code, what was said, what was complained about) of a command about the run."""

    def asked(command, *flags):
        code = main([command, run, *flags])
        return code, *capsys.readouterr()

    return asked


def rows_of(said):
    return json.loads(said)['rows']


@pytest.mark.parametrize('user', ['001', 'Zoë / 0', 'Zoë / 39'])
def test_a_list_is_that_of_the_library(ask, served, user):
    code, said, _ = ask('recommend', '--user', user, '--n', '4', '--json')
    assert code == 0 and said.isascii() and said.count('\n') == 1
    assert rows_of(said) == served.recommend(user, n=4).to_dict('records')
    code, said, _ = ask('recommend', '--user', user, '--n', '4')
    lines = said.splitlines()
    assert code == 0 and len(lines) == 5 and lines[0].split() == ['user', 'rank', 'item', 'title', 'score']
    assert all(line.startswith(user) for line in lines[1:])


def test_several_users_limits_and_the_base(ask, served):
    ids, shown = ['001', '002'], served.items.item[served.items.genre == 'crime'].tolist()
    flags = [word for one in ids for word in ('--user', one)]
    blocked = served.recommend(ids, side='base', where={'genre': ['crime', 'history']}).item[0]
    limits = ['--where', 'genre=crime', '--where', 'genre=history', '--block', blocked, '--side', 'base']
    _, said, _ = ask('recommend', *flags, *limits, '--json')
    expected = served.recommend(ids, side='base', where={'genre': ['crime', 'history']}, block=[blocked])
    assert rows_of(said) == expected.to_dict('records') and set(expected.user) == set(ids)
    _, said, _ = ask('recommend', '--user', '001', '--allow', shown[0], '--allow', shown[1], '--json')
    assert rows_of(said) == served.recommend('001', allow=shown[:2]).to_dict('records')
    _, said, _ = ask('recommend', '--user', '001', *[x for item in served.items.item for x in ('--block', item)])
    assert said == 'nothing is left that may be shown.\n'


def test_everybody_goes_into_a_file(ask, served, tmp_path):
    code, said, _ = ask('recommend', '--all', '--out', str(tmp_path / 'lists.parquet'), '--n', '3', '--side', 'base')
    lists, expected = pd.read_parquet(tmp_path / 'lists.parquet'), served.recommend(n=3, side='base')
    assert code == 0 and '40 users' in said and lists.item.tolist() == expected.item.tolist()
    code, said, _ = ask('recommend', '--all', '--out', str(tmp_path / 'l.parquet'), '--json')
    assert json.loads(said) == {'users': 40, 'file': str(tmp_path / 'l.parquet')}


def test_somebody_new_by_a_sentence_by_items_or_both(ask, served):
    liked = served.items.item[:2].tolist()
    items = [word for item in liked for word in ('--item', item)]
    for flags, known in ((['--profile', SENTENCE], {'profile': SENTENCE}), (items, {'items': liked})):
        guest = served.guest(**known)
        code, said, _ = ask('recommend', *flags, '--json')
        assert code == 0 and rows_of(said) == guest.recommend().to_dict('records')
        assert json.loads(said)['how'] == guest.how
    code, said, _ = ask('recommend', '--profile', SENTENCE, *items, '--disliked', served.items.item[5], '--n', '2')
    both = served.guest(SENTENCE, liked, [served.items.item[5]])
    assert said.splitlines()[0] == f'A guest: {both.how}' and len(said.splitlines()) == 4


def test_what_is_like_it(ask, served):
    item, user = served.items.item[4], served.users.user[3]
    for flags, table in (
        (['--item', item], served.similar_items(item, 3)),
        (['--item', item, '--space', 'profiles'], served.similar_items(item, 3, 'profiles')),
        (['--user', user, '--side', 'base'], served.similar_users(user, 3, side='base')),
    ):
        code, said, _ = ask('similar', *flags, '--n', '3', '--json')
        assert code == 0 and rows_of(said) == table.to_dict('records')
    assert json.loads(said)['space'] == 'model'
    assert ask('similar', '--user', user, '--n', '3')[1].split('\n')[0].split() == ['of', 'rank', 'user', 'score']


def test_a_hostile_title_does_nothing_to_a_terminal(ask, served):
    user = next(user for user in served.users.user if served.items.item[0] in set(served.recommend(user, n=30).item))
    said = ask('recommend', '--user', user, '--n', '30')[1]
    assert '\x1b' not in said and 'Red⟨U+001B⟩[31m book' in said


@pytest.mark.parametrize('command, flags, told', [
    ('recommend', ['--user', '01'], "no user is called '01': did you mean"),
    ('recommend', ['--user', '1'], 'no user is called'),
    ('recommend', ['--user', ''], 'no user is called'),
    ('recommend', ['--item', 'b0001'], "no item is called 'b0001': did you mean 'B0001'"),
    ('recommend', ['--user', '001', '--block', 'B00011'], "'B0001'"),
    ('recommend', ['--user', '001', '--where', 'gender=crime'], 'they have genre'),
    ('recommend', [], 'say for whom, in one way'),
    ('recommend', ['--user', '001', '--profile', 'crime'], 'say for whom, in one way'),
    ('recommend', ['--all'], '--all and --out FILE go together'),
    ('recommend', ['--user', '001', '--out', 'x.parquet'], '--all and --out FILE go together'),
    ('recommend', ['--profile', ' '], 'the profile is empty'),
    ('similar', ['--item', 'B00011'], "'B0001'"),
    ('similar', ['--user', 'Zoe / 0'], "did you mean 'Zoë / 0'"),
    ('similar', [], 'one of the two'),
    ('similar', ['--item', 'B0001', '--user', '001'], 'one of the two'),
])  # fmt: skip
def test_refusals_are_one_sentence_with_a_cure_that_is_there(ask, command, flags, told):
    code, said, complained = ask(command, *flags)
    assert code == 2 and not said and complained.count('\n') == 1 and 'unknown=' not in complained
    assert told in complained


def test_unknown_users_by_a_choice(ask, served):
    code, said, complained = ask('recommend', '--user', '01', '--user', '001')
    assert code == 2 and '--unknown warn' in complained and '--unknown popular' in complained
    code, said, complained = ask('recommend', '--user', '01', '--user', '001', '--unknown', 'warn', '--json')
    assert code == 0 and {row['user'] for row in rows_of(said)} == {'001'} and 'left out' in complained
    code, said, _ = ask('recommend', '--user', '01', '--unknown', 'popular')
    assert code == 0 and said.startswith('01: unknown, and shown what most people chose.')


def test_no_folder_and_no_run_are_told(tmp_path, capsys):
    for command in ('recommend', 'similar'):
        assert main([command, str(tmp_path / 'nowhere'), '--user', 'u']) == 2
        assert main([command, str(tmp_path), '--user', 'u']) == 2
        complained = capsys.readouterr().err
        assert 'there is no folder' in complained and 'neither a run folder' in complained


def test_an_answer_by_id_needs_no_training_code(run):
    """Nor a text model: this is what keeps an answer under a few seconds."""
    heavy = ['torch', 'sentence_transformers', 'transformers', 'faiss', 'promax_nb.models.train', 'fastapi']
    code = (
        'import sys\nfrom promax_nb.cli import main\n'
        f'codes = [main(["recommend", {run!r}, "--user", "001"]), main(["similar", {run!r}, "--item", "B0001"])]\n'
        f'print(codes, [name for name in {heavy} if name in sys.modules])'
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == '[0, 0] []'
