"""A small OpenAI-compatible server on the loopback, whose faults are scripted by the test.

In a test it runs in a thread: `with Server(fault) as server`. As a separate process (`Process`), or
`python -m tests.llm_server --delay 0.05`, it gives every request the same answer and counts the paid requests.
It implements HTTP/1.1 on bare asyncio, so that its own cost stays small in a measurement.
"""

import argparse
import asyncio
import collections
import contextlib
import hashlib
import json
import subprocess
import sys
import threading
import time
import urllib.request

from tests.paths import ROOT

RESET = "reset"
"""A fault: the connection breaks without an answer."""
HANG = "hang"
"""A fault: no answer comes, ever."""
DRIP = "drip"
"""A fault: the answer comes a byte at a time, and never ends."""


def answer_to(schema, words="Some words."):
    """A value that fits a JSON schema; strings are `words`, of an enum the last but one."""
    if "anyOf" in schema:
        return answer_to(schema["anyOf"][0], words)
    if "enum" in schema:
        return schema["enum"][-2]
    if schema["type"] == "object":
        return {name: answer_to(part, words) for name, part in schema["properties"].items()}
    return words


def completion(text, finish_reason="stop", **message):
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }


def error(status, message="scripted", code=None, **headers):
    """A fault that the client may retry at once."""
    return status, {"retry-after-ms": "1", **headers}, {"error": {"message": message, "type": "e", "code": code}}


def prompt_tokens(body):
    """The tokens of a request; a token has 4 bytes."""
    return sum(len(message["content"].encode()) for message in body["messages"]) // 4


def window(tokens, text="This model's maximum context length is {} tokens. However, you requested {} tokens"):
    """A script of a server with a context window of `tokens`: a longer prompt and answer is an error 400."""

    def fault(number, body):
        needed = prompt_tokens(body) + body["max_tokens"]
        return error(400, text.format(tokens, needed)) if needed > tokens else None

    return fault


def schema_in(body):
    """The schema in a request: in its response format, or derived from the example at the end of its last message."""
    form = body.get("response_format", {})
    if form.get("type") == "json_schema":
        return form["json_schema"]["schema"]
    parts = {}
    for name, placeholder in json.loads(body["messages"][-1]["content"].rpartition("\n")[2]).items():
        kind, _, choices = placeholder.strip("<>").partition(" of")
        parts[name] = {"enum": choices.removeprefix(": ").split(", ")} if kind == "one" else {"type": "string"}
    return {"type": "object", "properties": parts}


class Server:
    """`fault(number, body)` gives (status, headers, payload) for the request of that number (from 0), RESET, HANG,
    DRIP, the raw bytes of an answer, or None for an answer that fits the schema.

    With `one_at_a_time`, an answer takes `delay` seconds after the one before it. A payload is JSON (dict), a string,
    or bytes; bytes are sent with the length of `headers["content-length"]`.
    `extra(method, path, headers, data)` answers all other requests, in the same way.
    """

    def __init__(self, fault=None, delay=0.0, extra=None, one_at_a_time=False):
        self.fault = fault or (lambda number, body: None)
        self.delay, self.one_at_a_time = delay, one_at_a_time
        self.free_at = 0.0
        self.extra = extra or (lambda method, path, headers, data: (404, {}, {"error": {"message": "no such path"}}))
        self.bodies = []
        self.times = []
        self.paths = []
        self.authorizations = []
        self.headers = []
        self.in_flight = self.most_in_flight = 0
        self.errors = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def respond(self, method, path, headers, data):
        """(status, headers, payload), or RESET, HANG, DRIP."""
        if method != "POST" or not path.partition("?")[0].endswith("/chat/completions"):
            return self.extra(method, path, headers, data)
        body = json.loads(data)
        number = len(self.bodies)
        self.bodies.append(body)
        self.times.append(time.monotonic())
        self.paths.append(path)
        self.authorizations.append(headers.get("authorization"))
        self.headers.append(headers)
        return self.fault(number, body) or (200, {}, completion(json.dumps(answer_to(schema_in(body)))))

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        listening = self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=512)
        self._http = self._loop.run_until_complete(listening)
        self.port = self._http.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        def stop():
            self._http.close()
            for connection in list(_Connection.alive):
                if connection.owner is self:
                    connection.transport.abort()
            self._loop.call_soon(self._loop.stop)

        self._loop.call_soon_threadsafe(stop)
        self._thread.join()
        self._loop.close()
        if self.errors and exception[0] is None:
            raise self.errors[0]  # a script that fails is a broken test


class Counting(Server):
    """Every request gets the same answer; `GET /v1/paid` returns counts of requests and CPU seconds.

    Bodies are hashed and forgotten, so its own memory and CPU stay small.
    """

    def __init__(self, text, delay, broken=0):
        super().__init__(delay=delay)
        self.answer = json.dumps(completion(text)).encode()
        self.counts = collections.Counter()
        self.broken = broken

    def respond(self, method, path, headers, data):
        if method == "GET":
            counts = collections.Counter(self.counts.values())
            cpu = time.process_time()
            return 200, {}, {"paid": sum(self.counts.values()), "distinct": len(self.counts), "by": counts, "cpu": cpu}
        self.counts[hashlib.md5(data).digest()] += 1
        return 200, {}, self.answer


class _Connection(asyncio.Protocol):
    alive = set()

    def __init__(self, owner):
        self.owner = owner
        self.buffer = b""
        self.loop = asyncio.get_event_loop() if owner is None else owner._loop

    def connection_made(self, transport):
        self.transport = transport
        self.alive.add(self)

    def connection_lost(self, exception):
        self.alive.discard(self)

    def data_received(self, data):
        self.buffer += data
        if self.buffer.startswith(b"\x16\x03"):  # TLS, which this server does not speak
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()
            return
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            method, path, _ = first.split(" ")
            self.owner.in_flight += 1
            self.owner.most_in_flight = max(self.owner.most_in_flight, self.owner.in_flight)
            try:
                response = self.owner.respond(method, path, headers, rest[:length])
            except Exception as trouble:
                self.owner.errors.append(trouble)
                response = error(500, f"the script failed: {trouble!r}")
            delay = self.owner.delay if method == "POST" else 0
            if self.owner.one_at_a_time:
                self.owner.free_at = max(self.owner.free_at, self.loop.time()) + delay
                delay = self.owner.free_at - self.loop.time()
            self.loop.call_later(delay, self.answer, response)

    def answer(self, response):
        self.owner.in_flight -= 1
        if response == RESET:
            self.transport.abort()
        elif response == DRIP:
            self.transport.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{"')
            self.drip()
        elif isinstance(response, bytes):
            self.transport.write(response)
            self.transport.close()
        elif response != HANG:
            status, headers, payload = response
            if isinstance(payload, dict | list):
                payload = json.dumps(payload).encode()
            elif isinstance(payload, str):
                payload = payload.encode()
            headers = {"content-type": "application/json", "content-length": str(len(payload)), **headers}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.transport.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode("latin-1") + payload)
            if int(headers["content-length"]) != len(payload):
                self.transport.close()

    def drip(self):
        if not self.transport.is_closing():
            self.transport.write(b" ")
            self.loop.call_later(0.02, self.drip)


class Process:
    """A `Counting` server in a separate process; `paid()` returns its counts."""

    def __init__(self, text, delay):
        self.arguments = ["--text", text, "--delay", str(delay)]

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.llm_server", *self.arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.url = self.process.stdout.readline().strip()
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def paid(self):
        with urllib.request.urlopen(f"{self.url}/paid", timeout=30) as response:
            return json.load(response)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", default='{"colour": "red"}')
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt), Counting(options.text, options.delay) as server:
        print(server.url, flush=True)
        server._thread.join()


if __name__ == "__main__":
    main()
