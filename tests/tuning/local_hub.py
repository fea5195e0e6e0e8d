"""As much of the model hub's protocol as an upload needs, on this machine; it keeps what it was sent."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = "0" * 40
# What the hub keeps outside of git, by its .gitattributes.
LARGE = ("*.safetensors", "*.onnx", "*.onnx.data")


class Hub(ThreadingHTTPServer):
    """One account, `someone`.

    Attributes:
        files: of the repository, by name.
        created: what was asked for, for each new repository.
        tokens: Authorization headers that came.
        commits: number of commits.
        refusals: path's part → status and message of the answer.
        large: whether weights go the way of large files.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.large_files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.commits = 0
        self.refusals: dict[str, tuple[int, str]] = {}
        self.large = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.refused():
            return
        if self.path == "/api/whoami-v2":
            self.answer({"type": "user", "name": "someone", "orgs": []})
        elif "/tree/" in self.path:
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": COMMIT}
                    for name, content in self.server.files.items()
                ]
            )
        elif self.server.created or self.server.files:
            self.answer({"sha": COMMIT, "siblings": [], "id": "someone/news"})
        else:
            self.answer({"error": "Repository not found"}, 404)

    def do_PUT(self) -> None:
        content = self.body()
        self.server.large_files[hashlib.sha256(content).hexdigest()] = content
        self.answer({})

    def do_POST(self) -> None:
        body = self.body()
        self.server.tokens.add(self.headers["Authorization"])
        if self.refused():
            return
        if self.path == "/api/repos/create":
            entry = json.loads(body)
            self.server.created.append(entry)
            name = f"{entry.get('organization') or 'someone'}/{entry['name']}"
            self.answer({"url": f"{self.server.address}/{name}", "id": name})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: self.server.large and any(fnmatch(name, kind) for kind in LARGE) for name in names}
            self.answer(
                {
                    "files": [
                        {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
                        for name, large in modes.items()
                    ]
                }
            )
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            upload = {"href": f"{self.server.address}/large"}
            self.answer(
                {
                    "transfer": "basic",
                    "objects": [entry | {"actions": {"upload": upload}} for entry in objects],
                }
            )
        elif "/commit/" in self.path:
            self.commit(body)
            url = f"{self.server.address}/someone/news/commit/{COMMIT}"
            self.answer({"commitUrl": url, "commitOid": COMMIT, "success": True})
        else:
            self.answer({"errors": [], "warnings": []})

    def commit(self, body: bytes) -> None:
        self.server.commits += 1
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.large_files[value["oid"]]
            elif entry["key"] == "deletedFile":
                del self.server.files[value["path"]]

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def refused(self) -> bool:
        for part, (status, message) in self.server.refusals.items():
            if part in self.path:
                self.answer({"error": message}, status)
                return True
        return False

    def answer(self, entries: Any, status: int = 200) -> None:
        content = json.dumps(entries).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def serve() -> Iterator[Hub]:
    """The hub, while it is up."""
    hub = Hub()
    Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
