"""A server of language models in a process of its own, for the benchmarks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


@contextmanager
def served(
    command: Sequence[object], log: Path, seconds: float, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, psutil.Process]]:
    """The address of the OpenAI-compatible API of a server, once it answers, and its process.

    Args:
        command: starts the server; `--port` and a free port are added.
        log: file of its output.
        seconds: in which it must answer.
        environment: further environment variables.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, deadline = f"http://127.0.0.1:{port}/v1", time.monotonic() + seconds
    arguments = [str(part) for part in (*command, "--port", port)]
    with log.open("w") as file:
        server = subprocess.Popen(
            arguments, stdout=file, stderr=file, env={**os.environ, **(environment or {})}, start_new_session=True
        )
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{url}/models", timeout=5).close()
                    break
                except OSError:
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(f"The server does not answer, see {log}.") from None
                    time.sleep(1)
            yield url, psutil.Process(server.pid)
        finally:
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(server.pid, signal.SIGTERM)  # also its workers
            server.wait()
