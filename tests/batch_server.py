"""The Batch API of a scripted server: files and batches in memory, with faults by the line and by the batch."""

import json
import re

from tests.llm_server import answer_to, completion, schema_in


class BatchApi:
    """Answers `extra` of `llm_server.Server`.

    `line(body)` returns None for a valid answer, (status, payload), or "expired"; `outcome(batch)` returns the final
    status of a batch, None for completed, or (status, errors); it ends after `polls` polls. `paid` lists the first
    messages of the paid requests, in their order.
    """

    def __init__(self, line=None, outcome=None, polls=1):
        self.line = line or (lambda body: None)
        self.outcome = outcome or (lambda batch: None)
        self.polls = polls
        self.files, self.batches, self.paid, self.calls = {}, {}, [], []
        self.next_fault = None

    def __call__(self, method, path, headers, data):
        path, _, _ = path.partition("?")
        self.calls.append((method, path))
        if self.next_fault and self.next_fault[0] == (method, path):
            fault = self.next_fault[1]
            self.next_fault = None
            if callable(fault):
                return fault(lambda: self.answer(method, path, headers, data))
            return fault
        return self.answer(method, path, headers, data)

    def answer(self, method, path, headers, data):
        if (method, path) == ("POST", "/v1/files"):
            mark = re.search(r"boundary=(\S+)", headers["content-type"]).group(1).strip('"').encode()
            parts = [part.partition(b"\r\n\r\n") for part in data.split(b"--" + mark)]
            content = next(body for head, _, body in parts if b'name="file"' in head).removesuffix(b"\r\n")
            assert any(b'name="purpose"' in head and body.strip() == b"batch" for head, _, body in parts)
            return self.new_file(content)
        if (method, path) == ("POST", "/v1/batches"):
            asked = json.loads(data)
            assert asked["endpoint"] == "/v1/chat/completions"
            number = f"batch-{len(self.batches)}"
            self.batches[number] = {"file": asked["input_file_id"], "looks": 0, "done": None}
            return 200, {}, self.shown(number)
        if (method, path) == ("GET", "/v1/batches"):
            return (
                200,
                {},
                {"object": "list", "data": [self.shown(number) for number in self.batches], "has_more": False},
            )
        if match := re.fullmatch(r"/v1/batches/(.+)", path):
            batch = self.batches[match.group(1)]
            batch["looks"] += 1
            if batch["looks"] > self.polls and batch["done"] is None:
                self.finish(batch)
            return 200, {}, self.shown(match.group(1))
        if match := re.fullmatch(r"/v1/files/(.+)/content", path):
            return 200, {"content-type": "application/octet-stream"}, self.files[match.group(1)]
        return 404, {}, {"error": {"message": f"no such path: {method} {path}"}}

    def new_file(self, content):
        number = f"file-{len(self.files)}"
        self.files[number] = content
        about = {"id": number, "object": "file", "bytes": len(content), "created_at": 0, "filename": "x.jsonl"}
        return 200, {}, {**about, "purpose": "batch", "status": "processed"}

    def finish(self, batch):
        decided = self.outcome(batch)
        status, errors = decided if isinstance(decided, tuple) else (decided or "completed", None)
        good, bad = [], []
        for text in [] if status == "failed" else self.files[batch["file"]].splitlines():
            asked = json.loads(text)
            result = self.line(asked["body"])
            about = {"id": "r", "custom_id": asked["custom_id"]}
            if result == "expired":
                bad.append({**about, "response": None, "error": {"code": "batch_expired", "message": "too late"}})
                continue
            status_code, payload = result or (200, completion(json.dumps(answer_to(schema_in(asked["body"])))))
            if status_code == 200:
                self.paid.append(asked["body"]["messages"][0]["content"])
            line = {
                **about,
                "response": {"status_code": status_code, "request_id": "q", "body": payload},
                "error": None,
            }
            (good if status_code == 200 else bad).append(line)
        ids = [
            self.new_file("".join(json.dumps(line) + "\n" for line in lines).encode())[2]["id"] if lines else None
            for lines in (good, bad)
        ]
        batch["done"] = (status, errors, *ids)
        batch["completed"] = len(good)

    def shown(self, number):
        batch = self.batches[number]
        status, errors, output, wrong = batch["done"] or ("in_progress", None, None, None)
        return {
            "id": number,
            "object": "batch",
            "completion_window": "24h",
            "created_at": 0,
            "endpoint": "/v1/chat/completions",
            "input_file_id": batch["file"],
            "status": status,
            "errors": errors and {"object": "list", "data": errors},
            "output_file_id": output,
            "error_file_id": wrong,
            "request_counts": {"total": 0, "completed": batch.get("completed", 0), "failed": 0},
        }
