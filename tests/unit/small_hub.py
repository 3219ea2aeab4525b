"""A small hub on loopback: the parts of the Hugging Face hub's HTTP API that its client asks."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34
_API = re.compile(r"^/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?:revision|tree)/(?P<revision>[^/?]+))?")
_FILE = re.compile(r"^/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)$")


@dataclass
class SmallHub:
    """One repository, ``org/model``, whose only branch is ``main``.

    Attributes:
        files: Its files by name.
        token: What a client has to send; None lets everybody in.
        is_gated: Whether access has to be granted.
        cuts: Files whose next answer ends after so many bytes, and with it the connection.
        asked: Files that were sent, and from which byte on.
        sent: Bytes that were sent of each.
        url: Where it answers.
    """

    files: dict[str, bytes]
    token: str | None = None
    is_gated: bool = False
    cuts: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    url: str = ""

    @contextmanager
    def running(self) -> Iterator[SmallHub]:
        """Answer on a free port while the block runs."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: SmallHub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        api, file = _API.match(self.path), _FILE.match(self.path)
        match = api or file
        if match is None or match["repo"] != "org/model":
            self._refuse(404, "RepoNotFound")
        elif self.hub.token and self.headers["Authorization"] != f"Bearer {self.hub.token}":
            self._refuse(401, "RepoNotFound")
        elif match["revision"] not in (None, "main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif api:
            self._send_listing(with_body)
        elif self.hub.is_gated:
            self._refuse(403, "GatedRepo")
        else:
            assert file is not None
            self._send_file(file["name"], with_body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_listing(self, with_body: bool) -> None:
        if "/tree/" in self.path:
            listing: object = [
                {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
                for name, content in self.hub.files.items()
            ]
        else:
            siblings = [{"rfilename": name} for name in self.hub.files]
            listing = {"id": "org/model", "sha": COMMIT, "siblings": siblings, "private": False}
        content = json.dumps(listing).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _send_file(self, name: str, with_body: bool) -> None:
        if name not in self.hub.files:
            self._refuse(404, "EntryNotFound")
            return
        content = self.hub.files[name]
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2]) + 1, len(content)) if asked and asked[2] else len(content)
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{_etag(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        if not with_body:
            return
        self.hub.asked.append((name, start))
        cut = self.hub.cuts.pop(name, None)
        sent = content[start : end if cut is None else start + cut]
        self.hub.sent[name] = self.hub.sent.get(name, 0) + len(sent)
        self.wfile.write(sent)
        if cut is not None:
            self.close_connection = True
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
