"""A small OpenAI-compatible server on the loopback, whose faults are scripted by the test."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer_to(schema, words="Some words."):
    """A value that fits a JSON schema; strings are `words`, of an enum the last but one."""
    if "anyOf" in schema:
        return answer_to(schema["anyOf"][0], words)
    if "enum" in schema:
        return schema["enum"][-2]
    if schema["type"] == "object":
        return {name: answer_to(part, words) for name, part in schema["properties"].items()}
    return words


def completion(text, **message):
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }


def error(status, message="scripted", **headers):
    """A fault that the client may retry at once."""
    return status, {"retry-after-ms": "1", **headers}, {"error": {"message": message, "type": "e", "code": None}}


class Server:
    """`fault(number, body)` gives (status, headers, payload) for the request of that number (from 0), or None.

    A payload is JSON (dict), a string, or bytes; bytes are sent with the length of `headers["content-length"]`.
    """

    def __init__(self, fault=None, delay=0.0):
        self.fault = fault or (lambda number, body: None)
        self.delay = delay
        self.bodies = []
        self.paths = []
        self.authorizations = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with owner._lock:
                    number = len(owner.bodies)
                    owner.bodies.append(body)
                    owner.paths.append(self.path)
                    owner.authorizations.append(self.headers["authorization"])
                    owner.in_flight += 1
                    owner.most_in_flight = max(owner.most_in_flight, owner.in_flight)
                time.sleep(owner.delay)
                schema = body["response_format"]["json_schema"]["schema"]
                status, headers, payload = owner.fault(number, body) or (
                    200,
                    {},
                    completion(json.dumps(answer_to(schema))),
                )
                with owner._lock:
                    owner.in_flight -= 1
                data = (
                    payload
                    if isinstance(payload, bytes)
                    else payload.encode()
                    if isinstance(payload, str)
                    else (json.dumps(payload).encode())
                )
                headers = {"content-type": "application/json", "content-length": str(len(data)), **headers}
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                if int(headers["content-length"]) != len(data):
                    self.close_connection = True

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._http.shutdown()
        self._http.server_close()
