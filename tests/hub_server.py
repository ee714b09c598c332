"""A small Hub on the loopback, stored on disk: the routes that `huggingface_hub`, `datasets` and `transformers` use.

    root/blobs/<sha256>                          contents
    root/repos/<kind>s/<namespace>/<name>.json   visibility, refs, and the files of each commit

Set HF_ENDPOINT to its url, and HF_HUB_DISABLE_XET=1 for uploads, before any Hugging Face library is imported.
"""

import base64
import contextlib
import datetime
import hashlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

TOKENS = {
    "hf_writer": {"name": "writer", "orgs": ["org"], "role": "write"},
    "hf_reader": {"name": "reader", "orgs": ["org"], "role": "read"},
    "hf_stranger": {"name": "stranger", "orgs": [], "role": "write"},
}
LFS_SUFFIXES = (".safetensors", ".parquet", ".png")
PIECE = 2**14

REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
API = rf"/api/(?P<kind>model|dataset|space)s/{REPO}"
FILE = rf"/(?:(?P<kind>dataset|space)s/)?{REPO}"
ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("DELETE", r"/api/repos/delete", "delete"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("GET", rf"{API}(?:/revision/(?P<revision>[^/]+))?", "info"),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", "tree"),
    ("POST", rf"{API}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("GET", rf"{API}/refs", "refs"),
    ("GET", rf"{API}/commits/(?P<revision>[^/]+)", "commits"),
    ("POST", rf"{API}/(?P<ref>branch|tag)/(?P<revision>[^/]+)", "mark"),
    ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{API}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"{FILE}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<sha256>[0-9a-f]{64})/(?P<signature>[0-9a-f]+)", "lfs_put"),
    ("GET", rf"{FILE}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]


class Refused(Exception):
    def __init__(self, status, message, code="", **more):
        super().__init__(message)
        self.status, self.code, self.more = status, code, more


class HubServer:
    """The server. `fault(method, path)` returns a status to reject a request with, "cut" to close the connection in
    the middle of an upload or of the response to a GET, or None. `pause` is the time per 16 KiB in seconds.
    """

    def __init__(self, root):
        self.root = Path(root)
        self.fault = lambda method, path: None
        self.pause = 0.0
        self.requests = []
        self._lock = threading.RLock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def files(self, kind, repo, revision="main"):
        """The contents of a repository by path."""
        commit = self.commit_of(self.load(kind, repo), revision)[1]
        return {path: self.blob(entry["sha256"]).read_bytes() for path, entry in commit["files"].items()}

    def __enter__(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args):
                pass

            def answer(self):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    owner.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._http.shutdown()
        self._http.server_close()

    def put(self, kind, repo, files, private=False):
        """Add `files` in one commit, as if somebody else had pushed them; returns the commit."""
        if not self.repo_file(kind, repo).exists():
            about = {"private": private, "sdk": None, "branches": {}, "tags": {}, "commits": {}}
            self.add_commit(kind, repo, about, "main", "initial commit", {".gitattributes": self.entry(b"", False)})
        about = self.load(kind, repo)
        there = self.commit_of(about, "main")[1]["files"]
        new = {path: self.entry(data, path.endswith(LFS_SUFFIXES)) for path, data in files.items()}
        return self.add_commit(kind, repo, about, "main", "somebody's", there | new)

    def answer(self, http):
        address = urlsplit(http.path)
        path = unquote(address.path)
        self.requests.append((http.command, path))
        fault = self.fault(http.command, path)
        if fault == "cut" and http.command != "GET":
            http.rfile.read(int(http.headers.get("content-length", 2)) // 2)
            return self.hang_up(http)
        body = self.read_body(http)
        headers = {"Content-Type": "application/json"}
        try:
            if fault and fault != "cut":
                raise Refused(fault, "scripted")
            user = self.user(http)
            method = "GET" if http.command == "HEAD" else http.command
            for known, pattern, name in ROUTES:
                if known == method and (found := re.fullmatch(pattern, path)):
                    with self._lock:
                        result = getattr(self, name)(user, body, parse_qs(address.query), **found.groupdict())
                    break
            else:
                raise Refused(404, "no such route")
            status, data = 200, result
            if isinstance(result, tuple):  # a file
                headers, data = result
                status, data = self.cut(http, headers, data)
        except Refused as refusal:
            status, data = refusal.status, {"error": str(refusal), **refusal.more}
            headers |= {"X-Error-Message": str(refusal), **({"X-Error-Code": refusal.code} if refusal.code else {})}
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        http.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            http.send_header(key, value)
        http.end_headers()
        if http.command == "HEAD":
            return None
        sent = data[: len(data) // 2] if fault == "cut" else data
        for start in range(0, len(sent), PIECE):
            time.sleep(self.pause)
            http.wfile.write(sent[start : start + PIECE])
        return self.hang_up(http) if fault == "cut" else None

    @staticmethod
    def hang_up(http):
        http.close_connection = True
        http.wfile.flush()
        http.connection.shutdown(socket.SHUT_RDWR)

    def read_body(self, http):
        if http.headers.get("transfer-encoding") != "chunked":
            left, pieces = int(http.headers.get("content-length", 0)), []
            while left:
                time.sleep(self.pause)
                pieces.append(http.rfile.read(min(left, PIECE)))
                left -= len(pieces[-1])
            return b"".join(pieces)
        chunks = []
        while size := int(http.rfile.readline(), 16):
            chunks.append(http.rfile.read(size))
            http.rfile.readline()
        http.rfile.readline()
        return b"".join(chunks)

    @staticmethod
    def cut(http, headers, data):
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", http.headers.get("range", ""))
        if not asked:
            return 200, data
        first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        if first >= len(data):
            raise Refused(416, "beyond the end")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return 206, data[first : last + 1]

    # Users and their rights

    def user(self, http):
        token = http.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise Refused(401, "Invalid credentials in Authorization header")
        return TOKENS.get(token)

    @staticmethod
    def may_write(user, repo):
        if user is None:
            raise Refused(401, "Invalid username or password.")
        namespace = repo.split("/")[0]
        if user["role"] != "write" or namespace not in (user["name"], *user["orgs"]):
            raise Refused(403, f"You don't have the rights to write to {namespace}")

    def read(self, user, kind, repo):
        about = self.load(kind, repo)
        if about["private"] and (user is None or repo.split("/")[0] not in (user["name"], *user["orgs"])):
            raise Refused(401, "Repository not found", "RepoNotFound")
        return about

    # Files on disk

    def blob(self, sha256):
        return self.root / "blobs" / sha256

    def keep(self, data):
        sha256 = hashlib.sha256(data).hexdigest()
        self.blob(sha256).parent.mkdir(parents=True, exist_ok=True)
        self.blob(sha256).write_bytes(data)
        return sha256

    def entry(self, data, lfs):
        sha256 = self.keep(data)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n".encode()
        stored = pointer if lfs else data
        oid = hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()
        return {"sha256": sha256, "size": len(data), "oid": oid, "lfs": lfs, "pointer": len(pointer)}

    def repo_file(self, kind, repo):
        return self.root / "repos" / f"{kind or 'model'}s" / f"{repo}.json"

    def load(self, kind, repo):
        if not self.repo_file(kind, repo).exists():
            raise Refused(404, "Repository not found", "RepoNotFound")
        return json.loads(self.repo_file(kind, repo).read_text())

    def add_commit(self, kind, repo, about, branch, message, files):
        parent = about["branches"].get(branch)
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        commit = {"message": message, "date": date, "parent": parent, "files": files}
        oid = hashlib.sha1(json.dumps([repo, len(about["commits"]), commit]).encode()).hexdigest()
        about["commits"][oid] = commit
        about["branches"][branch] = oid
        self.repo_file(kind, repo).parent.mkdir(parents=True, exist_ok=True)
        self.repo_file(kind, repo).write_text(json.dumps(about))
        return oid

    @staticmethod
    def commit_of(about, revision):
        oid = about["branches"].get(revision) or about["tags"].get(revision) or revision
        if oid not in about["commits"]:
            raise Refused(404, "Revision not found", "RevisionNotFound")
        return oid, about["commits"][oid]

    # Routes: (user, body, query, **parts of the path)

    def whoami(self, user, body, query):
        if user is None:
            raise Refused(401, "Invalid username or password.")
        return {
            "type": "user",
            "name": user["name"],
            "orgs": [{"type": "org", "name": name} for name in user["orgs"]],
            "auth": {"accessToken": {"displayName": f"token of {user['name']}", "role": user["role"]}},
        }

    def create(self, user, body, query):
        asked = json.loads(body)
        repo = f"{asked.get('organization') or user['name']}/{asked['name']}"
        kind = asked.get("type") or "model"
        self.may_write(user, repo)
        url = f"{self.url}/{'' if kind == 'model' else kind + 's/'}{repo}"
        if self.repo_file(kind, repo).exists():
            raise Refused(409, "You already created this repo", url=url, name=repo)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        about = {"private": private, "sdk": asked.get("sdk"), "branches": {}, "tags": {}, "commits": {}}
        attributes = self.entry("".join(f"*{end} filter=lfs\n" for end in LFS_SUFFIXES).encode(), lfs=False)
        files = {".gitattributes": attributes}
        if asked.get("sdk") == "static":  # the Hub creates an initial page
            files |= {
                name: self.entry(b"Welcome to your static Space!", lfs=False) for name in ("index.html", "style.css")
            }
        self.add_commit(kind, repo, about, "main", "initial commit", files)
        return {"url": url, "name": repo}

    def delete(self, user, body, query):
        asked = json.loads(body)
        repo, kind = f"{asked.get('organization') or user['name']}/{asked['name']}", asked.get("type")
        self.may_write(user, repo)
        self.load(kind, repo)
        self.repo_file(kind, repo).unlink()
        return {}

    def validate_yaml(self, user, body, query):
        return {"errors": [], "warnings": []}

    def info(self, user, body, query, kind, repo, revision=None):
        about = self.read(user, kind, repo)
        oid, commit = self.commit_of(about, revision or "main")
        return {
            "_id": oid[:24],
            "id": repo,
            "author": repo.split("/")[0],
            "sha": oid,
            "private": about["private"],
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "lastModified": commit["date"],
            "createdAt": commit["date"],
            "siblings": [{"rfilename": path} for path in commit["files"]],
            **({"sdk": about["sdk"]} if kind == "space" else {}),
        }

    @staticmethod
    def described(files, path):
        """A file or a folder as the Hub lists it, None where there is neither."""
        if entry := files.get(path):
            lfs = {"oid": entry["sha256"], "size": entry["size"], "pointerSize": entry["pointer"]}
            about = {"type": "file", "path": path, "size": entry["size"], "oid": entry["oid"]}
            return {**about, **({"lfs": lfs} if entry["lfs"] else {})}
        if any(name.startswith(path + "/") for name in files):
            return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}
        return None

    def tree(self, user, body, query, kind, repo, revision, path=None):
        files = self.commit_of(self.read(user, kind, repo), revision)[1]["files"]
        above = f"{path}/" if path else ""
        inside = [name.removeprefix(above) for name in files if name.startswith(above)]
        if not inside:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        names = set()
        for name in inside:
            parts = name.split("/")
            names |= {"/".join(parts[: n + 1]) for n in range(len(parts) if deep else 1)}
        return [self.described(files, above + name) for name in sorted(names)]

    def paths_info(self, user, body, query, kind, repo, revision):
        files = self.commit_of(self.read(user, kind, repo), revision)[1]["files"]
        found = [self.described(files, path.strip("/")) for path in parse_qs(body.decode()).get("paths", [])]
        return [about for about in found if about]

    def refs(self, user, body, query, kind, repo):
        about = self.read(user, kind, repo)
        return {"converts": []} | {
            key: [{"name": name, "ref": f"refs/{ref}/{name}", "targetCommit": oid} for name, oid in about[key].items()]
            for key, ref in (("branches", "heads"), ("tags", "tags"))
        }

    def commits(self, user, body, query, kind, repo, revision):
        about = self.read(user, kind, repo)
        oid, listed = self.commit_of(about, revision)[0], []
        while oid:
            commit = about["commits"][oid]
            listed.append({"id": oid, "title": commit["message"], "message": "", "date": commit["date"], "authors": []})
            oid = commit["parent"]
        return listed

    def mark(self, user, body, query, kind, repo, ref, revision):
        self.may_write(user, repo)
        about = self.load(kind, repo)
        asked = json.loads(body or b"{}")
        # A tag names itself in the body, and what it points at in the path.
        name, start = (asked["tag"], revision) if ref == "tag" else (revision, asked.get("startingPoint", "main"))
        marks = about["tags" if ref == "tag" else "branches"]
        if name in marks:
            raise Refused(409, f"{name} already exists")
        marks[name] = self.commit_of(about, start)[0]
        self.repo_file(kind, repo).write_text(json.dumps(about))
        return {}

    def preupload(self, user, body, query, kind, repo, revision):
        self.may_write(user, repo)
        there = self.commit_of(self.load(kind, repo), revision)[1]["files"]
        files = []
        for file in json.loads(body)["files"]:
            binary = b"\0" in base64.b64decode(file["sample"]) or file["path"].endswith(LFS_SUFFIXES)
            entry = there.get(file["path"])
            # The client compares it with the SHA-256 of a large file, and the git hash of another.
            oid = entry and entry["sha256" if entry["lfs"] else "oid"]
            mode = "lfs" if binary else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def commit(self, user, body, query, kind, repo, revision):
        self.may_write(user, repo)
        about = self.load(kind, repo)
        head, before = self.commit_of(about, revision)
        files, message = dict(before["files"]), ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit", head) != head:
                    raise Refused(412, "A commit has happened since. Please refresh and try again.")
            elif item["key"] == "file":
                files[value["path"]] = self.entry(base64.b64decode(value["content"]), lfs=False)
            elif item["key"] == "lfsFile":
                if not self.blob(value["oid"]).exists():
                    raise Refused(400, f"{value['path']} was not uploaded")
                files[value["path"]] = self.entry(self.blob(value["oid"]).read_bytes(), lfs=True)
            elif item["key"] == "deletedFile":
                del files[value["path"]]
            elif item["key"] == "deletedFolder":
                files = {path: file for path, file in files.items() if not path.startswith(value["path"])}
            else:
                raise Refused(400, f"{item['key']} is not known here")
        oid = self.add_commit(kind, repo, about, revision, message, files)
        prefix = "" if kind == "model" else f"{kind}s/"
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{prefix}{repo}/commit/{oid}"}

    def lfs_batch(self, user, body, query, kind, repo):
        self.may_write(user, repo)
        objects = []
        for asked in json.loads(body)["objects"]:
            about = {"oid": asked["oid"], "size": asked["size"]}
            if not self.blob(asked["oid"]).exists():
                # The upload comes without a token: its address is the permission.
                href = f"{self.url}/lfs/{asked['oid']}/{self.signature(asked['oid'])}"
                about["actions"] = {"upload": {"href": href}}
            objects.append(about)
        return {"transfer": "basic", "objects": objects}

    def signature(self, sha256):
        return hashlib.sha256(f"{id(self)} {sha256}".encode()).hexdigest()[:16]

    def lfs_put(self, user, body, query, sha256, signature):
        if signature != self.signature(sha256):
            raise Refused(403, "wrong signature")
        if hashlib.sha256(body).hexdigest() != sha256:
            raise Refused(400, "the content does not match its SHA-256")
        self.keep(body)
        return {}

    def resolve(self, user, body, query, kind, repo, revision, path):
        oid, commit = self.commit_of(self.read(user, kind, repo), revision)
        if path not in commit["files"]:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        entry = commit["files"][path]
        etag = f'"{entry["sha256"] if entry["lfs"] else entry["oid"]}"'
        headers = {"X-Repo-Commit": oid, "ETag": etag, "Accept-Ranges": "bytes"}
        return {**headers, "Content-Type": "application/octet-stream"}, self.blob(entry["sha256"]).read_bytes()
