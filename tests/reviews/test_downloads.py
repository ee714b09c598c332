"""URLs as inputs, from servers on the loopback: fetched once, resumed, requested again on demand only."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from regen_hf import outputs, progress
from regen_hf.cli import main
from regen_hf.errors import ConfigError, InputError
from regen_hf.reviews import downloads
from regen_hf.reviews.downloads import Downloads, check_url
from regen_hf.reviews.files import find
from regen_hf.run import STAGES, Run
from tests.hub_server import HubServer
from tests.paths import ROOT

REVIEWS = "".join(
    f'{{"reviewerID": "U{n % 40}", "asin": "A{n % 30}", "unixReviewTime": {1_500_000_000 + n}, "overall": {1 + n % 5}, '
    f'"reviewText": "Number {n} is {hashlib.sha256(bytes([n % 256])).hexdigest()}"}}\n'
    for n in range(2000)
).encode()
ITEMS = "".join(f'{{"asin": "A{n}", "title": "Item {n}"}}\n' for n in range(30)).encode()
CHANGED = REVIEWS.replace(b"Number", b"Numbah")
HALF = len(REVIEWS) // 2


class WebServer:
    """Serves `files`, with the headers and the faults that a test sets."""

    def __init__(self):
        self.files = {"/reviews.jsonl": REVIEWS, "/items.jsonl": ITEMS}
        self.requests = []
        self.etag = lambda data: f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        self.modified = "Mon, 01 Jan 2024 00:00:00 GMT"
        self.ranges = True
        self.length = True
        self.status = None
        self.cuts = []  # bytes of the body after which the connection is closed, one per request
        self.pause = 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                owner.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.http.shutdown()
        self.http.server_close()

    def answer(self, http):
        path, asked = http.path.partition("?")[0], http.headers
        self.requests.append((http.path, {name.lower(): value for name, value in asked.items()}))
        data = self.files.get(path)
        status = self.status or (404 if data is None else 200)
        sent = {"Connection": "close"}
        if status != 200:
            data = b"no"
        else:
            if self.etag:
                sent["ETag"] = self.etag(data)
            if self.modified:
                sent["Last-Modified"] = self.modified
            marks = {sent.get("ETag"), sent.get("Last-Modified")} - {None}
            if {asked.get("if-none-match"), asked.get("if-modified-since")} & marks:
                status, data = 304, b""
            span = re.fullmatch(r"bytes=(\d+)-", asked.get("range", "")) if self.ranges else None
            if span and asked.get("if-range", next(iter(marks), "")) in marks | {""}:
                start = int(span[1])
                if start >= len(data):
                    status, data = 416, b""
                else:
                    sent["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                    status, data = 206, data[start:]
        if self.length:
            sent["Content-Length"] = str(len(data))
        http.send_response(status)
        for name, value in sent.items():
            http.send_header(name, value)
        http.end_headers()
        http.close_connection = True
        end = self.cuts.pop(0) if self.cuts and status in (200, 206) else len(data)
        for at in range(0, end, 2**14):
            time.sleep(self.pause)
            with contextlib.suppress(ConnectionError):  # the client hung up
                http.wfile.write(data[at : min(at + 2**14, end)])


@pytest.fixture
def web():
    with WebServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.01)


def fetch(folder, url, **how):
    """Fetch a URL in a new process's place: the content of its one file."""
    Downloads(folder).fetch(url, "--reviews", **how)
    (path,) = Downloads(folder).paths([url])
    return Path(path).read_bytes()


def index(folder):
    return json.loads((folder / outputs.DOWNLOADS_INDEX).read_text())


def test_a_file_is_fetched_once_and_then_read_without_a_request(web, tmp_path):
    url = f"{web.url}/reviews.jsonl"
    assert fetch(tmp_path, url) == REVIEWS
    assert fetch(tmp_path, url) == REVIEWS
    assert len(web.requests) == 1
    assert web.requests[0][1]["accept-encoding"] == "identity"
    ((entry),) = index(tmp_path)["files"].values()
    assert entry["identity"] == {"etag": web.etag(REVIEWS)}
    assert entry["sha256"] == hashlib.sha256(REVIEWS).hexdigest()
    assert not Path(entry["path"]).is_absolute()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("etag", [True, False])
def test_refresh_requests_a_file_again_and_fetches_it_only_if_it_changed(web, tmp_path, etag):
    url = f"{web.url}/reviews.jsonl"
    if not etag:
        web.etag = None
    fetch(tmp_path, url)
    before = index(tmp_path)
    assert fetch(tmp_path, url, refresh=True) == REVIEWS
    assert len(web.requests) == 2
    assert index(tmp_path) == before
    web.files["/reviews.jsonl"] = CHANGED
    web.modified = "Tue, 02 Jan 2024 00:00:00 GMT"
    assert fetch(tmp_path, url) == REVIEWS
    assert fetch(tmp_path, url, refresh=True) == CHANGED
    assert len(web.requests) == 3


def test_refresh_without_an_identity_fetches_the_file_again(web, tmp_path):
    web.etag = web.modified = None
    url = f"{web.url}/reviews.jsonl"
    fetch(tmp_path, url)
    web.files["/reviews.jsonl"] = CHANGED  # of the same size
    assert fetch(tmp_path, url, refresh=True) == CHANGED


def cut_download(web, folder, url, monkeypatch):
    """Fetch half of a file; the next process has to continue."""
    monkeypatch.setattr(downloads, "TRIES", 1)
    web.cuts = [HALF, 0]
    with pytest.raises(InputError, match=r"download.* failed after [\d,]+ bytes.*same command again to resume"):
        Downloads(folder).fetch(url, "--reviews")
    (part,) = folder.rglob("*.part")
    assert part.stat().st_size <= HALF
    assert not Downloads(folder).is_fetched(url)
    web.requests.clear()
    web.cuts = []
    return part.stat().st_size


@pytest.mark.parametrize("etag", ["strong", "weak", "none"])
def test_an_interrupted_download_continues_where_it_stopped(web, tmp_path, monkeypatch, etag):
    url = f"{web.url}/reviews.jsonl"
    if etag != "strong":
        web.etag = (lambda data: f'W/"{len(data)}"') if etag == "weak" else None
    received = cut_download(web, tmp_path, url, monkeypatch)
    assert received > 0
    assert fetch(tmp_path, url) == REVIEWS
    assert [asked["range"] for _, asked in web.requests] == [f"bytes={received}-"]


@pytest.mark.parametrize("change", ["content", "content of a weak tag", "no ranges", "no identity", "shorter"])
def test_a_changed_file_or_a_server_without_ranges_starts_again(web, tmp_path, monkeypatch, change):
    url = f"{web.url}/reviews.jsonl"
    content = CHANGED if change.startswith("content") else REVIEWS
    if change == "content of a weak tag":
        web.etag = lambda data: f'W/"{hashlib.sha256(data).hexdigest()}"'
    if change == "no identity":
        web.etag = web.modified = None
    cut_download(web, tmp_path, url, monkeypatch)
    if change == "no ranges":
        web.ranges = False
    if change == "shorter":
        content = REVIEWS[:1000]
    web.files["/reviews.jsonl"] = content
    web.modified = web.modified and "Tue, 02 Jan 2024 00:00:00 GMT"
    if change == "no ranges":
        web.modified = "Mon, 01 Jan 2024 00:00:00 GMT"
    assert fetch(tmp_path, url) == content
    assert index(tmp_path)["files"][url]["sha256"] == hashlib.sha256(content).hexdigest()


def test_one_command_continues_after_cuts_as_long_as_bytes_arrive(web, tmp_path):
    web.cuts = [HALF // 2] * 3
    web.pause = 0.001
    assert fetch(tmp_path, f"{web.url}/reviews.jsonl") == REVIEWS
    assert [("range" in asked) for _, asked in web.requests] == [False, True, True, True]


def test_a_cut_that_repeats_without_progress_is_an_error(web, tmp_path):
    web.cuts = [0] * 20
    with pytest.raises(InputError, match="failed after 0 bytes"):
        fetch(tmp_path, f"{web.url}/reviews.jsonl")
    assert len(web.requests) == downloads.TRIES


def test_a_body_without_a_length_is_read_to_its_end(web, tmp_path):
    web.length = False
    assert fetch(tmp_path, f"{web.url}/reviews.jsonl") == REVIEWS


def test_an_interrupted_refresh_keeps_the_file_that_is_there(web, tmp_path, monkeypatch):
    url = f"{web.url}/reviews.jsonl"
    fetch(tmp_path, url)
    web.files["/reviews.jsonl"] = CHANGED
    monkeypatch.setattr(downloads, "TRIES", 1)
    web.cuts = [HALF, 0]
    with pytest.raises(InputError):
        fetch(tmp_path, url, refresh=True)
    assert fetch(tmp_path, url) == REVIEWS
    web.cuts, web.requests = [], []
    assert fetch(tmp_path, url, refresh=True) == CHANGED
    assert "range" in web.requests[0][1]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "There is no file at the URL .*404"),
        (410, "There is no file at the URL"),
        (401, "denied .*401.*login"),
        (403, "denied .*403"),
        (503, "failed after 0 bytes: the server answered with status 503"),
        (400, "answered with status 400"),
    ],
)
def test_an_answer_without_a_file_is_a_sentence_without_the_query(web, tmp_path, status, words):
    web.status = status
    with pytest.raises(InputError, match=words) as error:
        fetch(tmp_path, f"{web.url}/reviews.jsonl?download=hidden")
    assert "hidden" not in str(error.value)
    assert "/reviews.jsonl" in str(error.value)


def test_no_server_is_a_sentence(web, tmp_path):
    url = web.url
    web.http.server_close()
    with pytest.raises(InputError, match=r"failed after 0 bytes: .*refused.*Check the network"):
        fetch(tmp_path, f"{url}/reviews.jsonl")


@pytest.mark.parametrize("page", [b"\n<!DOCTYPE html><html>", b"<html><body>Sign in"])
def test_a_web_page_is_not_kept_as_data(web, tmp_path, page):
    web.files["/reviews.jsonl"] = page
    with pytest.raises(InputError, match="returned a web page"):
        fetch(tmp_path, f"{web.url}/reviews.jsonl")
    web.files["/reviews.jsonl"] = REVIEWS
    assert fetch(tmp_path, f"{web.url}/reviews.jsonl") == REVIEWS


def test_an_empty_file_is_an_error(web, tmp_path):
    web.files["/reviews.jsonl"] = b""
    with pytest.raises(InputError, match="empty"):
        fetch(tmp_path, f"{web.url}/reviews.jsonl")


def test_a_file_that_does_not_fit_on_the_disk_is_an_error_before_the_first_byte(web, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(InputError, match=r"has 1,000 bytes left.*same command again"):
        fetch(tmp_path, f"{web.url}/reviews.jsonl")


def test_a_full_disk_keeps_what_arrived(web, tmp_path, monkeypatch, capsys):
    words = ["sequences", str(tmp_path / "run"), "--items", f"{web.url}/items.jsonl"]
    words += ["--reviews", f"{web.url}/reviews.jsonl"]

    def full(bar, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("tqdm.tqdm.update", full)
        assert main(words) == 1
    assert "same command again" in capsys.readouterr().err
    assert main(words) == 0
    assert "range" in web.requests[1][1]


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@host/r.csv",
        "https://hunter2@host/r.csv",
        "s3://AKIA:hunter2@bucket/r.csv",
        "https://host/r.csv?X-Amz-Algorithm=AWS4&X-Amz-Signature=hunter2",
        "https://host/r.csv?sv=2024&sig=hunter2",
        "https://host/r.csv?a=1;api_key=hunter2",
        "https://host/r.csv#access_token=hunter2",
        "zip://r.csv::https://user:hunter2@host/r.zip",
    ],
)
@pytest.mark.parametrize("option", ["--reviews", "--items"])
def test_a_url_with_a_secret_is_rejected_before_anything_is_stored(url, option, tmp_path, capsys):
    assert main(["sequences", str(tmp_path / "run"), option, url]) == 1
    assert "hunter2" not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "url", ["https://host/r.csv?download=1", "hf://datasets/o/n@main/part-?-tokens*.csv", "s3://b/a"]
)
def test_other_urls_pass(url):
    check_url(url)


def test_a_pattern_of_a_web_server_is_rejected():
    with pytest.raises(ConfigError, match="lists no files"):
        check_url("https://host/*.csv")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://bucket/r.csv", "The package 's3fs' is not installed. Install it with: pip install s3fs"),
        ("nothing://bucket/r.csv", "expected hf://, https:// or s3://"),
    ],
)
def test_a_missing_package_and_an_unknown_scheme_are_sentences(url, words, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=re.escape(words)):
        fetch(tmp_path, url)


def test_only_raw_reviews_and_items_may_be_urls(tmp_path):
    with pytest.raises(InputError, match=r"--examples, is a URL, expected a file on this disk"):
        find(["https://host/e.jsonl?x=1"], "--examples")


# Other file systems of fsspec


def test_a_pattern_of_a_file_system_is_expanded_once_and_again_on_refresh(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe({"/logs/a.jsonl": REVIEWS, "/logs/b.jsonl": CHANGED, "/logs/c.txt": b"other"})
    url = "memory://logs/*.jsonl"
    fetched = Downloads(tmp_path)
    fetched.fetch(url, "--reviews")
    assert [Path(path).read_bytes() for path in fetched.paths([url])] == [REVIEWS, CHANGED]
    memory.pipe({"/logs/aa.jsonl": ITEMS, "/logs/b.jsonl": REVIEWS})
    fetched.fetch(url, "--reviews")
    assert len(fetched.paths([url])) == 2
    fetched.fetch(url, "--reviews", refresh=True)
    assert [Path(path).read_bytes() for path in fetched.paths([url])] == [REVIEWS, ITEMS, REVIEWS]
    with pytest.raises(InputError, match="No file matches"):
        fetched.fetch("memory://logs/*.csv", "--reviews")
    with pytest.raises(InputError, match=r"is a folder.*logs/\*.parquet"):
        fetched.fetch("memory://logs", "--reviews")
    with pytest.raises(InputError, match="There is no file at the URL"):
        fetched.fetch("memory://logs/none.csv", "--reviews")
    memory.rm("/logs", recursive=True)


@pytest.mark.parametrize("change", [False, True])
def test_a_read_of_a_file_system_resumes_or_starts_again(tmp_path, monkeypatch, change):
    memory = fsspec.filesystem("memory")
    memory.pipe("/resume/r.jsonl", REVIEWS)
    monkeypatch.setattr("regen_hf.reviews.remote_files.BLOCK", 2**12)
    opened = type(memory)._open
    offsets = []

    class Cutting:
        def __init__(self, file):
            self.file, self.left = file, 5

        def seek(self, at):
            offsets.append(at)
            return self.file.seek(at)

        def read(self, size):
            self.left -= 1
            if not self.left and len(offsets) == 1:
                if change:
                    memory.pipe("/resume/r.jsonl", CHANGED)
                raise OSError("the line is dead")
            return self.file.read(size)

        def close(self):
            pass

    monkeypatch.setattr(type(memory), "_open", lambda *words, **how: Cutting(opened(*words, **how)))
    assert fetch(tmp_path, "memory://resume/r.jsonl") == (CHANGED if change else REVIEWS)
    assert offsets == ([0, 0] if change else [0, 4 * 2**12])
    memory.rm("/resume", recursive=True)


# The command line


def test_a_run_from_urls_equals_a_run_from_files(web, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    (tmp_path / "reviews.jsonl").write_bytes(REVIEWS)
    (tmp_path / "items.jsonl").write_bytes(ITEMS)
    runs = {"files": [str(tmp_path / "reviews.jsonl"), str(tmp_path / "items.jsonl")]}
    runs["urls"] = [f"{web.url}/reviews.jsonl?download=1", f"{web.url}/items.jsonl"]
    rows = {}
    for name, (reviews, items) in runs.items():
        assert main(["sequences", str(tmp_path / name), "--reviews", reviews, "--items", items]) == 0
        rows[name] = [
            row for path in outputs.sequence_files(tmp_path / name) for row in pq.read_table(path).to_pylist()
        ]
    assert rows["files"] == rows["urls"]
    run = tmp_path / "urls"
    assert len(web.requests) == 2
    assert "download" in capsys.readouterr().err  # the progress bar

    def state(folder=run):
        main(["status", str(folder)])
        return capsys.readouterr().out.splitlines()[0]

    fingerprint = outputs.manifest(run, "sequences")["fingerprint"]
    assert outputs.manifest(tmp_path / "files", "sequences")["fingerprint"] == fingerprint
    assert state().startswith("sequences    fresh")
    # A rebuild with other settings reads the downloaded files.
    assert main(["sequences", str(run), "--k-core", "2"]) == 0
    assert main(["sequences", str(run), "--refresh"]) == 0
    assert len(web.requests) == 4
    assert state().startswith("sequences    fresh")
    # On another machine, and without the downloads as long as nothing must be built.
    moved = run.rename(tmp_path / "moved")
    assert state(moved).startswith("sequences    fresh")
    next((moved / outputs.DOWNLOADS).glob("*/*")).unlink()
    assert main(["sequences", str(moved)]) == 0
    shutil.rmtree(moved / outputs.DOWNLOADS)
    assert main(["sequences", str(moved)]) == 0
    assert len(web.requests) == 4
    assert str(tmp_path) not in (moved / outputs.CONFIG).read_text()
    # A changed file makes the stage stale only after --refresh.
    web.files["/reviews.jsonl"] = CHANGED
    assert main(["sequences", str(moved)]) == 0
    assert len(web.requests) == 4
    assert main(["sequences", str(moved), "--refresh"]) == 0
    assert outputs.manifest(moved, "sequences")["inputs"]["files"] == Run(moved).inputs(STAGES["sequences"])["files"]
    assert any(
        "Numbah" in str(row) for path in outputs.sequence_files(moved) for row in pq.read_table(path).to_pylist()
    )
    assert yaml.safe_load((moved / outputs.CONFIG).read_text())["sequences"]["reviews"] == runs["urls"][:1]


def test_status_says_what_is_not_downloaded_and_sends_no_request(web, tmp_path, capsys):
    web.status = 404
    run = tmp_path / "run"
    words = ["--reviews", f"{web.url}/reviews.jsonl?download=1", "--items", f"{web.url}/items.jsonl"]
    assert main(["run", str(run), *words, "--until", "sequences"]) == 1
    asked = len(web.requests)
    capsys.readouterr()
    assert main(["status", str(run)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("sequences    missing")
    assert f"not downloaded yet: {web.url}/reviews.jsonl?…, {web.url}/items.jsonl" in first
    assert len(web.requests) == asked
    web.status = None
    assert main(["run", str(run), "--until", "sequences"]) == 0  # the URLs are those of config.yaml


def hub_run(hub, home, *words, token=None):
    """The command line in a new process with a fresh cache of the Hub client."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_HOME": str(home / "home"),
        "HF_ENDPOINT": hub.url,
        "PYTHONPATH": str(ROOT),
        **({"HF_TOKEN": token} if token else {}),
    }
    words = [sys.executable, "-m", "regen_hf.cli", *map(str, words)]
    return subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True, timeout=120)


def test_files_of_the_hub(tmp_path):
    def shard(first):
        rows = [json.loads(line) for line in REVIEWS.splitlines()[first::2]]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "shard.parquet")
        return (tmp_path / "shard.parquet").read_bytes()

    with HubServer(tmp_path / "hub") as hub:
        data = {"data/a.parquet": shard(0), "data/b.parquet": shard(1), "items.jsonl": ITEMS}
        hub.put("dataset", "org/log", data, private=True)
        run = tmp_path / "run"
        words = ["--reviews", "hf://datasets/org/log/data/*.parquet", "--items", "hf://datasets/org/log/items.jsonl"]
        done = hub_run(hub, tmp_path, "sequences", run, *words)
        assert done.returncode == 1
        assert "HF_TOKEN" in done.stderr
        assert "Traceback" not in done.stderr
        cuts = iter(["cut"])
        hub.fault = lambda method, path: next(cuts, None) if method == "GET" and "/resolve/" in path else None
        done = hub_run(hub, tmp_path, "sequences", run, token="hf_reader")
        assert done.returncode == 0, done.stderr
        assert next(cuts, None) is None
        assert len(index(run / outputs.DOWNLOADS)["files"]) == 3
        assert json.loads((run / "sequences" / outputs.ACCOUNTING).read_text())["reviews"]["read"] == 2000
        assert "hf_reader" not in "".join(path.read_text() for path in (run / outputs.CONFIG, *run.rglob("*.json")))
        hub.requests.clear()
        done = hub_run(hub, tmp_path, "sequences", run, "--k-core", "2")
        assert done.returncode == 0, done.stderr
        assert hub.requests == []
        hub.put("dataset", "org/log", {"data/c.parquet": shard(0), "README.md": b"# Log"}, private=True)
        done = hub_run(hub, tmp_path, "sequences", run, "--refresh", token="hf_reader")
        assert done.returncode == 0, done.stderr
        assert [path for method, path in hub.requests if method == "GET" and "/resolve/" in path] == [
            "/datasets/org/log/resolve/main/data/c.parquet"
        ]
        assert json.loads((run / "sequences" / outputs.ACCOUNTING).read_text())["reviews"]["read"] == 3000
