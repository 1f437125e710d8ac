"""Writers for tests: a chat-completions server on this machine that plays a schedule, and a model that counts."""

import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from promax_nb.profiles.answers import Answer
from promax_nb.profiles.replies import LLMError

CANARY = 'canary-7Hq2Zk9Xw4'


class Server:
    """A chat-completions server on this machine; `schedule(prompt, nth)` says how the nth request of a prompt goes."""

    def __init__(self, schedule=None, delay=0.0):
        self.schedule, self.delay = schedule or (lambda prompt, nth: 'ok'), delay
        self.requests, self.served, self.bodies, self.tries, self.lock = [], [], [], {}, threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_POST(self):
                owner.handle(self)

            def log_message(self, *args):
                pass

        self.httpd = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.httpd.daemon_threads = True
        self.httpd.handle_error = lambda *args: None  # clients that hang up are part of the play
        self.url = f'http://127.0.0.1:{self.httpd.server_port}/v1'
        threading.Thread(target=self.httpd.serve_forever, args=(0.05,), daemon=True).start()

    def handle(self, h):
        body = json.loads(h.rfile.read(int(h.headers['Content-Length'])))
        prompt = body['messages'][0]['content']
        with self.lock:
            nth = self.tries[prompt] = self.tries.get(prompt, -1) + 1
            self.requests.append(prompt)
            self.bodies.append(body)
        time.sleep(self.delay)
        kind = self.schedule(prompt, nth)
        good = {
            'id': 'x',
            'object': 'chat.completion',
            'choices': [
                {
                    'index': 0,
                    'message': {'role': 'assistant', 'content': f'answer to {prompt}'},
                    'finish_reason': 'stop',
                }
            ],
            'usage': {'prompt_tokens': 10, 'completion_tokens': 5, 'total_tokens': 15},
        }
        if kind == 'nothing':
            h.close_connection = True
            h.connection.close()
            return
        status, headers, text = 200, {}, json.dumps(good)
        if kind == '429':
            status, headers, text = (
                429,
                {'Retry-After': '0', 'retry-after-ms': '1'},
                '{"error": {"message": "slow down"}}',
            )
        if kind == '500':
            status, headers, text = 500, {'retry-after-ms': '1'}, '{"error": {"message": "oops"}}'
        if kind == '401':
            status, text = 401, json.dumps({'error': {'message': f'bad key, you sent {dict(h.headers)}'}})
        if kind == '400':
            status, text = 400, 'your headers: ' + str(h.headers)
        if kind == 'cut':
            text = text[: len(text) // 2]
        if kind == 'blank':
            text = ''
        if kind == 'no choices':
            text = '{"choices": []}'
        if kind == 'empty':
            good['choices'][0].update(message={'role': 'assistant', 'content': ' '}, finish_reason='length')
            text = json.dumps(good)
        if kind == 'html':
            headers, text = {'Content-Type': 'text/html'}, '<html>login</html>'
        if kind == 'echo':
            good['choices'][0]['message']['content'] = f"I saw {h.headers['Authorization']}"
            text = json.dumps(good)
        h.send_response(status)
        for k, v in {'Content-Type': 'application/json', 'Content-Length': str(len(text.encode())), **headers}.items():
            h.send_header(k, v)
        h.end_headers()
        h.wfile.write(text.encode())
        if status == 200 and kind in ('ok', 'echo'):
            with self.lock:
                self.served.append(prompt)

    def close(self):
        self.httpd.shutdown()
        self.httpd.server_close()


def flaky(prompt, nth):
    """Seeded trouble: 429s and 500s go away on the second try, cut answers are failures the client does not retry."""
    kind = random.Random(f'{prompt}|0').choice(
        ['ok', 'ok', 'ok', '429', '500', 'cut', 'nothing' if prompt.endswith('7') else 'ok']
    )
    return 'ok' if nth else kind


class Echo:
    """A model that counts; `wrong` says which prompts it fails on."""

    name, params = 'echo', {'max_tokens': 10}

    def __init__(self, wrong=lambda p: False):
        self.wrong, self.asked, self.lock = wrong, [], threading.Lock()

    def complete(self, prompt, sample=0):
        with self.lock:
            self.asked.append(prompt)
        time.sleep(random.random() * 0.003)
        if self.wrong(prompt):
            raise LLMError(f'no answer to {prompt}')
        return Answer(f'{prompt}!' + (f'#{sample}' if sample else ''), len(prompt), 3)

    def __call__(self, prompt):
        return self.complete(prompt).text
