"""A hub of models on this machine, with one repository, that can be made slow, cut off or unwilling."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPOSITORY = "painters/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ERROR_CODES = {403: "GatedRepo", 404: "RepoNotFound"}
"""What the hub tells with a refusal, as its client reads it."""

LARGE = 1_000_000  # bytes

RESOLVE = re.compile(rf"/{REPOSITORY}/resolve/[^/]+/(?P<name>.+)")


class Hub(ThreadingHTTPServer):
    """Serves the folder `model` as `REPOSITORY`.

    Attributes:
        status: what every request is answered with; 200 serves.
        silent: seconds that pass before any answer.
        cuts: bytes that are sent of large files, one after the other, before their connections close.
        ranges: where downloads went on from.
    """

    daemon_threads = True

    def __init__(self, model: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model
        self.status, self.silent = 200, 0.0
        self.cuts: list[int] = []
        self.ranges: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self) -> dict[str, Path]:
        return {
            path.relative_to(self.model).as_posix(): path
            for path in sorted(self.model.rglob("*"))
            if path.is_file()
        }

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, Hub)
        return self.server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        time.sleep(self.hub.silent)
        path = self.path.split("?")[0]
        found = RESOLVE.fullmatch(path)
        if self.hub.status != 200:
            self.refuse(self.hub.status)
        elif found and found["name"] in self.hub.files():
            self.send_file(self.hub.files()[found["name"]], body)
        elif path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            self.send_json(
                [
                    {"type": "file", "path": name, "size": file.stat().st_size, "oid": _hash(file)}
                    for name, file in self.hub.files().items()
                ]
            )
        elif path in (f"/api/models/{REPOSITORY}", *_revisions()):
            siblings = [
                {"rfilename": name, "size": file.stat().st_size} for name, file in self.hub.files().items()
            ]
            self.send_json({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings})
        else:
            self.refuse(404)

    def refuse(self, status: int) -> None:
        self.send_response(status)
        if status in ERROR_CODES:
            self.send_header("X-Error-Code", ERROR_CODES[status])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_json(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def send_file(self, file: Path, body: bool) -> None:
        content = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.hub.ranges.append(start)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{_hash(file)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return
        part = content[start:]
        if len(part) > LARGE and self.hub.cuts:
            part = part[: self.hub.cuts.pop(0)]
        self.wfile.write(part)
        self.wfile.flush()
        if len(part) < len(content) - start:
            self.close_connection = True


def _revisions() -> list[str]:
    return [f"/api/models/{REPOSITORY}/revision/{revision}" for revision in ("main", COMMIT)]


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:40]


@contextmanager
def serving(model: Path) -> Iterator[Hub]:
    """A hub that serves until the body ends."""
    with Hub(model) as hub:
        threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()
