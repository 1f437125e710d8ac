"""What a server says beside the text, and what it refuses: used, said as it is, and remembered."""

import json
import re
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from promax_nb.profiles.answers import Answer, choice_schema
from promax_nb.profiles.llm import chat
from promax_nb.profiles.replies import HIDDEN, LLMError, Trouble, read_reply, said_by, scrub, used

SCHEMA = choice_schema(['like', 'dislike'])


def reply(content='Enjoys war.', finish='stop', usage=None, message=None, **more):
    """The JSON of an ordinary reply."""
    message = {'role': 'assistant', 'content': content, **(message or {})}
    return {'choices': [{'index': 0, 'finish_reason': finish, 'message': message, **more}], 'usage': usage}


class Served:
    """A server on this machine: `answer(body) -> (status, JSON or text)`; what was asked stands in `.bodies`."""

    def __init__(self, answer):
        self.bodies, self.headers, owner = [], [], self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
                owner.bodies.append(body)
                owner.headers.append(dict(self.headers))
                status, said = answer(body)
                text = said if isinstance(said, str) else json.dumps(said)
                self.send_response(status)
                page = text.startswith('<')
                self.send_header('Content-Type', 'text/html' if page else 'application/json')
                self.send_header('Content-Length', str(len(text.encode())))
                self.send_header('retry-after-ms', '1')
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        self.httpd = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.httpd.daemon_threads = True
        self.url = f'http://127.0.0.1:{self.httpd.server_port}/v1'
        threading.Thread(target=self.httpd.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def serve(monkeypatch):
    """Start servers that are closed afterwards; no key, no address in the environment."""
    for name in ('OPENAI_API_KEY', 'OPENAI_BASE_URL', 'HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)
    started = []

    def start(answer):
        started.append(Served(answer if callable(answer) else lambda body: answer))
        return started[-1]

    yield start
    for served in started:
        served.httpd.shutdown()
        served.httpd.server_close()


def failure(llm, prompt='Who enjoys this?', **kw):
    """The error of one question."""
    with pytest.raises(LLMError) as e:
        llm.complete(prompt, **kw)
    assert e.value.__cause__ is None and e.value.__context__ is None
    return e.value


# ---------------------------------------------------------------- errors of any shape

SHAPES = [
    {'error': {'message': 'the sky is falling', 'type': 'x', 'code': None}},
    {'error': 'the sky is falling'},
    {'error': ['the sky is falling']},
    {'error': [{'message': 'the sky is falling'}]},
    [{'error': {'message': 'the sky is falling', 'status': 'INVALID'}}],
    {'message': 'the sky is falling', 'object': 'error'},
    {'detail': 'the sky is falling'},
    {'detail': [{'loc': ['body', 'x'], 'msg': 'the sky is falling', 'input': {'messages': 'SECRET PROMPT'}}]},
    {'error': {'message': 'the sky is falling', 'metadata': {'raw': '{"error": {"message": "cloud 9"}}'}}},
    {'error': {'metadata': {'raw': {'error': {'message': 'the sky is falling'}}}}},
    {'error': '{"message": "the sky is falling"}'},
    {'errors': [{'message': 'the sky is falling'}]},
    {'error_description': 'the sky is falling', 'error': {'code': 1}},
    'the sky is falling',
    '"the sky is falling"',
    '<!DOCTYPE html><html><head><title>the sky is falling</title></head><body>nginx</body></html>',
    '<html><style>b {x: y}</style><body><h1>the sky</h1> is falling</body></html>',
]


@pytest.mark.parametrize('body', SHAPES)
@pytest.mark.parametrize('status', [400, 418, 500])
def test_the_words_of_an_error_are_in_the_sentence(serve, body, status):
    error = failure(chat('m', serve((status, body)).url, None, max_retries=0))
    assert 'the sky' in str(error) and 'is falling' in str(error) and f'answered {status}' in str(error)
    assert 'SECRET' not in str(error) and not error.hopeless and error.billed == (status >= 500)


@pytest.mark.parametrize('body', [b for b in SHAPES if isinstance(b, dict)])
def test_an_error_with_the_status_of_success(serve, body):
    error = failure(chat('m', serve((200, body)).url, None, max_retries=0))
    assert 'the sky is falling' in str(error) and 'no choices' not in str(error)


def test_an_error_inside_of_a_choice(serve):
    body = reply(None, 'error', error={'code': 502, 'message': 'the provider is down'})
    error = failure(chat('m', serve((200, body)).url, None))
    assert 'answered 502' in str(error) and 'the provider is down' in str(error)


@pytest.mark.parametrize('status', [400, 401, 404, 429, 503])
@pytest.mark.parametrize('body', ['', '{}', 'null', '[]', '{"error": null}', '{"error": {}}'])
def test_an_error_without_words(serve, status, body):
    error = failure(chat('m', serve((status, body)).url, None, max_retries=0))
    assert f'answered {status}' in str(error) and 'None' not in str(error) and 'null' not in str(error)


@pytest.mark.parametrize('body', [{}, [], 'null', '3', {'choices': None}, {'choices': []}, {'choices': ['x']}])
def test_a_reply_that_is_none(serve, body):
    assert 'no choices' in str(failure(chat('m', serve((200, body)).url, None)))


def test_a_page_in_the_place_of_a_reply(serve):
    error = failure(chat('m', serve((200, '<html><title>Log in</title></html>')).url, None))
    assert 'Log in' in str(error) and 'JSON' in str(error)


def test_what_a_server_repeats_of_the_request_is_no_error():
    body = {'detail': [{'loc': ['body', 'seed'], 'msg': 'Extra inputs are not permitted', 'input': {'temperature': 0}}]}
    trouble = Trouble(422, body)
    assert trouble.said == 'Extra inputs are not permitted' and 'seed' in trouble.codes
    assert 'temperature' not in trouble.said + trouble.codes
    assert said_by(None) == said_by({}) == said_by('') == ''


# ---------------------------------------------------------------- in vain


@pytest.mark.parametrize(
    'status, body, words',
    [
        (401, {'error': {'message': 'Incorrect API key provided'}}, 'key'),
        (402, {'error': {'message': 'Insufficient Balance'}}, 'money'),
        (429, {'error': {'message': 'You exceeded your current quota', 'code': 'insufficient_quota'}}, 'money'),
        (429, {'error': {'message': 'over', 'type': 'insufficient_quota'}}, 'money'),
        (400, {'error': {'message': 'Your credit balance is too low to access the API'}}, 'money'),
        (400, {'error': {'message': 'x', 'code': 'billing_hard_limit_reached'}}, 'money'),
        (403, {'error': {'message': 'Your API key has no permission for this'}}, 'key may use|wants a key'),
        (403, {'error': {'message': 'Country, region, or territory not supported'}}, 'key'),
        (404, {'error': {'message': 'The model `m` does not exist', 'code': 'model_not_found'}}, 'model name'),
        (404, '{"detail": "Not Found"}', 'base_url'),
        (404, '<html><title>404 Not Found</title></html>', 'base_url'),
        (405, '', 'base_url'),
        (400, {'error': {'message': 'x is not a valid model ID'}}, 'model name'),
        (400, {'message': 'Invalid model: x', 'type': 'invalid_model'}, 'model name'),
        (400, [{'error': {'message': 'API key not valid. Please pass a valid API key.'}}], 'key'),
        (200, {'error': {'message': 'Insufficient credits', 'code': 402}}, 'money'),
        (200, {'error': {'message': 'No auth credentials found', 'code': 401}}, 'key'),
        (200, {'error': {'message': 'Rate limit exceeded: free-models-per-day', 'code': 429}}, 'quota'),
    ],
)
def test_what_every_further_request_would_meet_is_hopeless(serve, status, body, words):
    error = failure(chat('m', serve((status, body)).url, None, max_retries=0))
    assert error.hopeless and not error.billed and re.search(words, str(error).split('It said')[0])


@pytest.mark.parametrize(
    'status, body',
    [
        (429, {'error': {'message': 'Rate limit reached, try again in 2 s'}}),
        (400, {'error': {'message': "This model's maximum context length is 4096 tokens"}}),
        (403, {'error': {'message': 'Your input was flagged by moderation'}}),
        (403, '<html><title>Attention Required! | Cloudflare</title></html>'),
        (500, {'error': {'message': 'internal'}}),
        (503, 'model is loading'),
        (413, ''),
        (400, {'error': {'message': 'unknown value for stop'}}),
        (200, {'error': {'message': 'Provider returned error', 'code': 502}}),
    ],
)
def test_what_may_pass_is_not_hopeless(serve, status, body):
    assert not failure(chat('m', serve((status, body)).url, None, max_retries=0)).hopeless


def test_a_prompt_that_is_too_long_has_its_own_cure(serve):
    s = serve((400, {'error': {'message': "This model's maximum context length is 4096 tokens"}}))
    assert 'max_chars' in str(failure(chat('m', s.url, None)))


# ---------------------------------------------------------------- keys

WANTED = (401, {'error': {'message': 'Missing bearer authentication', 'code': None}})


def test_a_missing_key_is_told_by_a_cure_that_exists(serve, monkeypatch):
    s = serve(WANTED)
    without = str(failure(chat('m', s.url, None)))
    assert 'api_key_env' in without and 'None' not in without.split('It said')[0]
    assert 'bearer authentication' in without  # words are no key
    unset = str(failure(chat('m', s.url, 'NO_SUCH_KEY')))
    assert 'put it into the environment variable NO_SUCH_KEY' in unset
    monkeypatch.setenv('EMPTY_KEY', ' ')
    assert 'environment variable EMPTY_KEY' in str(failure(chat('m', s.url, 'EMPTY_KEY')))
    monkeypatch.setenv('A_KEY', 'canary-0123456789')
    assert 'check the key in A_KEY' in str(failure(chat('m', s.url, 'A_KEY')))
    assert 'api_key_env' in str(failure(chat('m', s.url, '')))


def test_a_key_that_is_set_but_empty(monkeypatch):
    monkeypatch.setenv('EMPTY_KEY', '')
    with pytest.raises(ValueError, match='EMPTY_KEY.*set but empty'):
        chat('m', 'https://example.invalid/v1', 'EMPTY_KEY').prepare()


@pytest.mark.parametrize('form', ['{}', ' {}\n', '"{}"', "'{}'", '"{}"\n', 'Bearer {}', '"Bearer {}"', '{}\r\n'])
def test_what_copying_adds_to_a_key_is_taken_off(serve, monkeypatch, form):
    monkeypatch.setenv('A_KEY', form.replace('{}', 'canary-0123456789'))
    s = serve((200, reply()))
    chat('m', s.url, 'A_KEY')('x')
    assert s.headers[0]['authorization'] == 'Bearer canary-0123456789'


@pytest.mark.parametrize('key', ['canary-01234\n56789', 'canary 0123456789', 'canary-01234–56789', 'canary\x00-012345'])
def test_a_key_that_cannot_be_one_is_refused_before_it_is_sent(monkeypatch, key):
    if '\x00' in key:
        key = key.replace('\x00', '\x07')
    monkeypatch.setenv('A_KEY', key)
    with pytest.raises(ValueError, match='the key in A_KEY holds') as e:
        chat('m', 'https://example.invalid/v1', 'A_KEY').prepare()
    assert 'canary' not in str(e.value)


def test_quoted_keys_are_hidden_too(monkeypatch):
    monkeypatch.setenv('A_API_KEY', '"canary-0123456789"')
    assert scrub('your key canary-0123456789 is wrong') == f'your key {HIDDEN} is wrong'
    assert scrub('Bearer abcdefghijklmnopqrstuvwxyz') == HIDDEN and 'bearer of news' in scrub('the bearer of news')


# ---------------------------------------------------------------- the environment


@pytest.mark.parametrize('blank', ['', ' ', '""'])
def test_empty_variables_count_as_not_set(serve, monkeypatch, blank):
    for name in ('OPENAI_BASE_URL', 'OPENAI_ORG_ID', 'OPENAI_PROJECT_ID', 'OPENAI_ORGANIZATION'):
        monkeypatch.setenv(name, blank.strip('"'))
    monkeypatch.setenv('OPENAI_BASE_URL', blank)
    assert chat('m').base_url is None and chat('m').server is None
    s = serve((200, reply()))
    assert chat('m', s.url, None)('x') == 'Enjoys war.'
    assert not {'openai-organization', 'openai-project'} & {name.lower() for name in s.headers[0]}
    monkeypatch.setenv('OPENAI_API_KEY', 'canary-0123456789')
    assert str(chat('m').prepare().base_url).startswith('https://api.openai.com/v1')


@pytest.mark.parametrize('name', ['HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy'])
@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost'])
def test_no_proxy_is_asked_about_this_machine(serve, monkeypatch, name, host):
    monkeypatch.setenv(name, 'http://127.0.0.1:9')  # nobody is there
    monkeypatch.delenv('NO_PROXY', raising=False)
    s = serve((200, reply()))
    assert chat('m', s.url.replace('127.0.0.1', host), None, max_retries=0)('x') == 'Enjoys war.'


def test_a_socks_proxy_does_not_matter_on_this_machine_and_is_a_sentence_elsewhere(serve, monkeypatch):
    monkeypatch.setenv('ALL_PROXY', 'socks5://127.0.0.1:9')
    s = serve((200, reply()))
    assert chat('m', s.url, None)('x') == 'Enjoys war.'
    monkeypatch.setenv('ALL_PROXY', 'nonsense://127.0.0.1:9')
    with pytest.raises(ValueError, match='ALL_PROXY'):
        chat('m', 'https://example.invalid/v1', None).prepare()


def test_a_proxy_that_is_down_is_named(monkeypatch):
    monkeypatch.setenv('HTTP_PROXY', 'http://127.0.0.1:9')
    monkeypatch.delenv('NO_PROXY', raising=False)
    monkeypatch.delenv('no_proxy', raising=False)
    error = failure(chat('m', 'http://example.invalid/v1', None, max_retries=0))
    assert 'no connection' in str(error) and 'HTTP_PROXY' in str(error) and not error.billed


@pytest.mark.parametrize(
    'given, address',
    [
        ('http://localhost:8000/v1', 'http://localhost:8000/v1'),
        (' "http://localhost:8000/v1" ', 'http://localhost:8000/v1'),
        ('http://localhost:8000/v1/', 'http://localhost:8000/v1'),
        ('http://localhost:8000/v1/chat/completions', 'http://localhost:8000/v1'),
        ('http://LOCALHOST:8000/v1', 'http://localhost:8000/v1'),
        ('http://me:secret@localhost:8000/v1?key=x', 'http://localhost:8000/v1'),
        ('http://example.org:80/v1', 'http://example.org/v1'),
        ('https://example.org:443/v1', 'https://example.org/v1'),
        ('http://[::1]:8000/v1', 'http://[::1]:8000/v1'),
        ('https://api.openai.com/v1/', None),
        (None, None),
    ],
)
def test_the_server_that_answers_belong_to(given, address, monkeypatch):
    monkeypatch.delenv('OPENAI_BASE_URL', raising=False)
    assert chat('m', given, None).server == address
    if given:
        monkeypatch.setenv('OPENAI_BASE_URL', given)
        assert chat('m', None, None).server == address


@pytest.mark.parametrize('given', ['localhost:8000', 'ftp://x', 'http://', 'http://host:port/v1', 'http://[::1/v1'])
def test_what_is_no_address(given):
    with pytest.raises(ValueError, match='not an address'):
        chat('m', given, None)


# ---------------------------------------------------------------- refused options


def newer(body):
    """A hosted model that knows neither max_tokens nor a temperature."""
    for odd, cure in (
        ('max_tokens', "Use 'max_completion_tokens' instead."),
        ('temperature', 'Only the default (1) value is supported.'),
    ):
        if odd in body:
            message = f"Unsupported parameter: '{odd}' is not supported with this model. {cure}"
            return 400, {'error': {'message': message, 'param': odd, 'code': 'unsupported_parameter'}}
    return 200, reply()


def test_newer_models_are_asked_as_they_want_it_and_it_is_remembered_and_told(serve):
    s = serve(newer)
    llm = chat('m', s.url, None, max_tokens=77)
    assert llm.deterministic
    with pytest.warns(UserWarning) as told:
        assert llm('a') == 'Enjoys war.'
    assert [re.search(r'refuses (\w+)', str(w.message))[1] for w in told] == ['max_tokens', 'temperature']
    assert len(s.bodies) == 3 and s.bodies[-1]['max_completion_tokens'] == 77 and 'temperature' not in s.bodies[-1]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert llm('b') == 'Enjoys war.'
    assert len(s.bodies) == 4
    assert llm.params == {'temperature': 0.0, 'max_tokens': 77}  # what answers are remembered under stays
    assert not llm.deterministic  # drawn at the server's own temperature


def test_the_other_way_round(serve):
    def older(body):
        if 'max_completion_tokens' in body:
            detail = {'type': 'extra_forbidden', 'loc': ['body', 'max_completion_tokens'], 'msg': 'no'}
            return 422, {'detail': [detail]}
        return 200, reply()

    s = serve(older)
    with pytest.warns(UserWarning, match='sent as max_tokens'):
        chat('m', s.url, None, max_completion_tokens=5)('a')
    assert s.bodies[0]['max_completion_tokens'] == 5 and 'max_tokens' not in s.bodies[0]
    assert s.bodies[1]['max_tokens'] == 5


@pytest.mark.parametrize(
    'message',
    [
        'max_tokens is too large: 512. This model supports at most 100 completion tokens',
        "'max_tokens' or 'max_completion_tokens' must be positive",
    ],
)
def test_a_limit_that_is_refused_for_its_value_is_not_dropped(serve, message):
    s = serve((400, {'error': {'message': message}}))
    llm = chat('m', s.url, None)
    assert message[:30] in str(failure(llm)) and not llm.refused


@pytest.mark.parametrize(
    'name, status, message',
    [
        ('seed', 422, 'body.seed: Extra inputs are not permitted'),
        ('top_p', 400, '`temperature` and `top_p` cannot both be specified for this model. Please use only one.'),
        ('temperature', 422, '`temperature` must be strictly positive'),
        ('temperature', 400, "Unrecognized request argument supplied: temperature"),
        ('temperature', 400, '`temperature` is deprecated for this model.'),
        ('temperature', 400, 'temperature: Input should be greater than 0'),
    ],
)
def test_options_that_change_the_draw_are_left_out_and_told(serve, name, status, message):
    def picky(body):
        return (status, {'error': {'message': message}}) if name in body and len(s.bodies) < 4 else (200, reply())

    s = serve(picky)
    with pytest.warns(UserWarning, match='left out'):
        assert chat('m', s.url, None, seed=3, top_p=0.9)('a') == 'Enjoys war.'


def test_an_option_of_a_persons_own_is_not_left_out_in_silence(serve):
    s = serve((400, {'error': {'message': "Unsupported parameter: 'stop' is not supported with this model."}}))
    llm = chat('m', s.url, None, stop=['x'])
    assert "'stop'" in str(failure(llm)) and len(s.bodies) == 1 and not llm.refused


@pytest.mark.parametrize(
    'status, said',
    [
        (400, {'error': {'message': 'logprobs are not supported'}}),
        (403, {'error': {'message': 'You are not allowed to request logprobs from this model'}}),
        (422, {'detail': [{'loc': ['body', 'logprobs'], 'msg': 'Extra inputs are not permitted'}]}),
        (400, ''),
        (404, {'error': {'message': 'No endpoints found that support the requested parameters'}}),
        (501, 'not implemented'),
        (500, {'error': 'top_logprobs is not supported by this engine'}),
        (200, {'error': {'message': 'logprobs not supported', 'code': 400}}),
    ],
)
def test_log_probabilities_are_done_without(serve, status, said):
    s = serve(lambda body: (status, said) if 'logprobs' in body else (200, reply('like')))
    llm = chat('m', s.url, None, max_retries=0)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert [llm.complete(p, logprobs=20).text for p in 'abc'] == ['like'] * 3
    assert len(s.bodies) == 4 and s.bodies[0]['top_logprobs'] == 20 and 'top_logprobs' not in s.bodies[1]


@pytest.mark.parametrize(
    'status, said',
    [
        (400, {'error': {'message': "'response_format' of type 'json_schema' is not supported with this model"}}),
        (404, {'error': {'message': 'No endpoints found that can handle the requested parameters.'}}),
        (422, {'detail': 'x'}),
        (500, {'error': {'message': 'response_format: not implemented'}}),
    ],
)
def test_structured_answers_are_asked_for_where_they_are_offered(serve, status, said):
    s = serve((200, reply('{"answer": "like"}')))
    assert chat('m', s.url, None).complete('x', schema=SCHEMA).text == '{"answer": "like"}'
    shape = s.bodies[0]['response_format']
    assert shape['type'] == 'json_schema' and shape['json_schema']['schema'] == SCHEMA
    s = serve(lambda body: (status, said) if 'response_format' in body else (200, reply('like')))
    llm = chat('m', s.url, None, max_retries=0)
    assert [llm.complete(p, schema=SCHEMA).text for p in 'ab'] == ['like'] * 2 and len(s.bodies) == 3


def test_no_shape_where_there_is_no_room_for_it_or_the_person_chose_one(serve):
    s = serve((200, reply('like')))
    chat('m', s.url, None, max_tokens=1).complete('x', schema=SCHEMA)
    assert 'response_format' not in s.bodies[0]
    chat('m', s.url, None, response_format={'type': 'json_object'}).complete('x', schema=SCHEMA)
    assert s.bodies[1]['response_format'] == {'type': 'json_object'}


def test_an_error_of_another_kind_teaches_nothing(serve):
    s = serve((400, {'error': {'message': 'the prompt is in bad taste'}}))
    llm = chat('m', s.url, None)
    assert 'bad taste' in str(failure(llm, schema=SCHEMA, logprobs=5)) and not llm.refused


def test_many_workers_learn_once(serve):
    s = serve(newer)
    llm = chat('m', s.url, None)
    with warnings.catch_warnings(record=True):
        threads = [threading.Thread(target=llm, args=(str(i),)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(s.bodies) == 14


# ---------------------------------------------------------------- usage, endings, thoughts beside the text


@pytest.mark.parametrize(
    'usage, expected',
    [
        (None, (None, None, None)),
        ({}, (None, None, None)),
        ([], (None, None, None)),
        ({'prompt_tokens': None, 'completion_tokens': None}, (None, None, None)),
        ({'prompt_tokens': 10, 'completion_tokens': 5}, (10, 5, None)),
        ({'input_tokens': 10, 'output_tokens': 5}, (10, 5, None)),
        ({'prompt_tokens': 10.0, 'completion_tokens': 'x'}, (10, None, None)),
        ({'prompt_tokens': True, 'completion_tokens': -1}, (None, None, None)),
        ({'prompt_tokens': float('inf'), 'completion_tokens': float('nan')}, (None, None, None)),
        ({'prompt_tokens': 10**30, 'completion_tokens': '5'}, (None, 5, None)),
        (
            {'prompt_tokens': 10, 'completion_tokens': 50, 'completion_tokens_details': {'reasoning_tokens': 45}},
            (10, 50, 45),
        ),
        ({'prompt_tokens': 10, 'completion_tokens': 5, 'total_tokens': 115}, (10, 105, None)),
        ({'prompt_tokens': 10, 'completion_tokens': 5, 'completion_tokens_details': None}, (10, 5, None)),
        ({'input_tokens': 1, 'output_tokens': 2, 'output_tokens_details': {'reasoning_tokens': 9}}, (1, 9, 9)),
    ],
)
def test_usage(usage, expected):
    assert used(usage) == expected
    answer = read_reply(reply(usage=usage))
    assert (answer.prompt_tokens, answer.completion_tokens, answer.thoughts) == expected


def test_what_ended_the_answer_travels_with_it(serve):
    s = serve((200, reply('Enjoys war and', 'length')))
    assert chat('m', s.url, None).complete('x') == Answer('Enjoys war and', finish='length')
    assert read_reply(reply(finish=None)).finish == 'stop'


@pytest.mark.parametrize('field', ['reasoning_content', 'reasoning', 'thinking', 'reasoning_details'])
def test_thoughts_in_a_field_of_their_own_are_no_answer(field):
    thoughts = [{'type': 'reasoning.text', 'text': 'trains'}] if field == 'reasoning_details' else 'trains'
    assert read_reply(reply('Enjoys war.', message={field: thoughts})).text == 'Enjoys war.'
    for content in ('', None, []):
        with pytest.raises(LLMError, match='thought but gave no answer.*max_tokens') as e:
            read_reply(reply(content, 'length', message={field: thoughts}))
        assert e.value.useless and e.value.answer.thoughts and 'trains' not in str(e.value)


def test_content_in_parts():
    thinking = {'type': 'thinking', 'thinking': [{'type': 'text', 'text': 'trains'}]}
    parts = [thinking, {'type': 'text', 'text': 'Enjoys.'}]
    answer = read_reply(reply(parts))
    assert answer.text == 'Enjoys.' and answer.thoughts
    with pytest.raises(LLMError, match='thought'):
        read_reply(reply(parts[:1]))


def test_refusals():
    for message in ({'refusal': 'I cannot'}, {'content': [{'type': 'refusal', 'refusal': 'I cannot'}]}):
        with pytest.raises(LLMError, match='refused: I cannot') as e:
            read_reply(reply(None, message=message, usage={'prompt_tokens': 7, 'completion_tokens': 2}))
        assert e.value.useless and e.value.answer.prompt_tokens == 7


def test_a_call_of_a_tool_is_no_answer():
    with pytest.raises(LLMError, match='tool'):
        read_reply(reply(None, 'tool_calls', message={'tool_calls': [{}]}))


def test_an_answer_that_a_filter_emptied_has_its_own_cure():
    with pytest.raises(LLMError, match='content filter.*look at the prompt') as e:
        read_reply(reply(None, 'content_filter'))
    assert 'max_tokens' not in str(e.value)


def test_a_prompt_that_a_filter_stopped_has_its_own_cure(serve):
    words = 'The response was filtered due to the prompt triggering our content management policy'
    error = failure(chat('m', serve((400, {'error': {'message': words, 'code': 'content_filter'}})).url, None))
    assert 'look at the prompt' in str(error) and not error.hopeless and not error.billed


def test_what_came_and_cannot_be_read_counts_as_charged_for(serve, monkeypatch):
    def odd(*args):
        raise OverflowError('nobody thought of this')

    monkeypatch.setattr('promax_nb.profiles.llm.read_reply', odd)
    error = failure(chat('m', serve((200, reply())).url, None))
    assert error.billed and 'OverflowError' in str(error)


def test_a_reply_in_the_old_form():
    assert read_reply({'choices': [{'text': 'Enjoys war.', 'finish_reason': 'stop'}]}).text == 'Enjoys war.'


def test_a_reply_whose_type_is_not_said(serve):
    s = serve((200, ' ' + json.dumps(reply())))
    assert chat('m', s.url, None)('x') == 'Enjoys war.'


def test_tries_that_may_have_been_charged_for_are_counted(serve):
    def stumbling(body):
        return [(500, 'oops'), (429, 'slow'), (503, 'oops')][len(s.bodies) - 1] if len(s.bodies) < 4 else (200, reply())

    s = serve(stumbling)
    assert chat('m', s.url, None).complete('x').lost == 2
    s = serve((500, 'oops'))
    error = failure(chat('m', s.url, None, max_retries=2))
    assert error.billed and error.lost == 2 and '3 tries' in str(error)
    assert failure(chat('m', serve((429, 'slow')).url, None, max_retries=2)).lost == 0
    assert failure(chat('m', 'http://127.0.0.1:9/v1', None, max_retries=1)).lost == 0


def test_whoever_holds_the_purse_is_asked_before_a_second_try(serve):
    s = serve(lambda body: (500, 'oops') if len(s.bodies) < 3 else (200, reply()))
    asked = []
    llm = chat('m', s.url, None)
    assert llm.complete('x', before_retry=lambda: asked.append(1) or True).lost == 2 and len(asked) == 2
    s.bodies.clear()
    error = failure(llm, before_retry=lambda: False)
    assert 'budget' in str(error) and error.billed and error.lost == 0 and len(s.bodies) == 1
    s = serve(lambda body: (429, 'slow') if len(s.bodies) < 3 else (200, reply()))
    assert chat('m', s.url, None).complete('x', before_retry=lambda: False).lost == 0  # nobody charges for a 429


def test_tries_before_a_refused_option_count_too(serve):
    def reluctant(body):
        if len(s.bodies) == 1:
            return 500, 'oops'
        return newer(body)

    s = serve(reluctant)
    with pytest.warns(UserWarning):
        assert chat('m', s.url, None).complete('x').lost == 1


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    'options, words',
    [
        ({'n': 3}, 'n=3'),
        ({'stream': True}, 'stream'),
        ({'temperature': -1}, 'temperature'),
        ({'temperature': 'hot'}, 'temperature'),
        ({'max_tokens': 0}, 'max_tokens'),
        ({'timeout': 0}, 'timeout'),
        ({'extra_body': {'api_key': 'canary-0123456789'}}, 'never an argument'),
        ({'token': 'canary-0123456789'}, 'never an argument'),
    ],
)
def test_settings_that_make_no_sense(options, words):
    with pytest.raises(ValueError, match=words) as e:
        chat('m', 'http://localhost:1/v1', None, **options)
    assert 'canary' not in str(e.value)


def test_settings_are_sent_and_remembered_under_the_same_names_as_before(serve):
    s = serve((200, reply()))
    llm = chat('m', s.url, None, temperature=None, max_tokens=None, stop=['x'], extra_body={'top_k': 3}, seed=1)
    llm.complete('hello', sample=4)
    assert s.bodies[0] == {
        'model': 'm',
        'messages': [{'role': 'user', 'content': 'hello'}],
        'stop': ['x'],
        'top_k': 3,
        'seed': 5,
    }
    assert llm.params == {'stop': ['x'], 'extra_body': {'top_k': 3}, 'seed': 1}
    assert not llm.deterministic and chat('m').deterministic and not chat('m', temperature=0.5).deterministic


def test_headers_are_sent_and_shown_nowhere(serve):
    s = serve((200, reply()))
    llm = chat('m', s.url, None, headers={'X-Team': 'canary-0123456789'})
    llm('x')
    assert s.headers[0]['x-team'] == 'canary-0123456789'
    assert 'canary' not in repr(llm) + repr(vars(llm)) + json.dumps(llm.params)
