"""A hub of one's own: as much of the Hugging Face hub's web interface as `datasets.load_dataset` asks for, on loopback.

with serving({"owner/name": {"data/train-00000-of-00001.parquet": b"..."}}) as endpoint:
    ...  # run with HF_ENDPOINT=endpoint and HF_HOME somewhere new
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match = re.match(r"(?:/api)?/datasets/([^/]+/[^/]+)(?:/(resolve|revision|tree)/[^/]+)?/?(.*)", url.path)
        files = self.repositories.get(match[1]) if match else None
        if url.path == "/":
            self.answer(200, b"a hub")
        elif not match or files is None:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif match[2] == "resolve":
            self.file(files, unquote(match[3]))
        elif match[2] == "tree":
            depth = 99 if "recursive=true" in url.query.lower() else 1
            self.json([entry for entry in listing(files) if below(entry["path"], unquote(match[3]), depth)])
        else:
            self.json({"id": match[1], "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})

    do_HEAD = do_GET  # noqa: N815 (the names are those of the server class)

    def file(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        tag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
        return self.answer(200, files[name], {"ETag": tag, "X-Repo-Commit": COMMIT})

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def listing(files: dict[str, bytes]) -> list[dict[str, str | int]]:
    folders = {name.rpartition("/")[0] for name in files} - {""}
    entries: list[dict[str, str | int]] = [{"type": "directory", "path": name, "oid": COMMIT} for name in folders]
    for name, data in files.items():
        entries.append({"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()})
    return entries


def below(path: str | int, folder: str, depth: int) -> bool:
    parts, above = str(path).split("/"), folder.split("/") if folder else []
    return parts[: len(above)] == above and 0 < len(parts) - len(above) <= depth


@contextmanager
def serving(repositories: dict[str, dict[str, bytes]]) -> Iterator[str]:
    """Serve these repositories, {id: {path: bytes}}, while inside; yields the endpoint."""
    handler = type("Here", (Handler,), {"repositories": repositories})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
