"""clickhouse_http.py PORT: ClickHouse's HTTP interface, as much as its Go client asks of it, over its engine (chDB).

Knows nothing of pytest: a process of its own, because the engine lives once in a process.
"""

from __future__ import annotations

import json
import re
import struct
import sys
import tempfile
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from chdb import session

BLOCK = b"\x01\x00\x02\xff\xff\xff\xff\x00"
"""How a block of an answer begins for the Go client. The engine's own Native format has it not, nor the byte behind
each column's type that says whether it is written in a special way; what the client sends has neither."""
INSERT = re.compile(r"^\s*INSERT\s+INTO\s+(?P<table>\S+)\s*\((?P<columns>[^)]*)\)", re.IGNORECASE)


class Handler(BaseHTTPRequestHandler):
    """One statement a request: in the parameter `query`, with the rows as the body; else the body itself."""

    protocol_version = "HTTP/1.1"
    turn = threading.Lock()
    """The client keeps connections open; the engine takes one statement at a time."""
    database: session.Session

    def do_GET(self) -> None:
        self._answer(200, b"Ok.\n")

    def do_POST(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        body = self._body()
        try:
            if "query" in asked and (insert := INSERT.match(asked["query"][0])):
                self._insert(insert, body)
                self._answer(200, b"")
            else:
                text = asked.get("query", [""])[0] + body.decode()
                form = asked.get("default_format", ["JSON"])[0]
                said = self._query(text, "JSONCompact" if form == "Native" else form)
                self._answer(200, native(said) if form == "Native" else said)
        except Exception:
            self._answer(500, traceback.format_exc().encode())

    def _query(self, text: str, form: str) -> bytes:
        with self.turn:
            said = self.database.query(text, form).bytes()
            return bytes(said) if said else b""

    def _insert(self, insert: re.Match[str], rows: bytes) -> None:
        with tempfile.NamedTemporaryFile(suffix=".native") as file:
            columns = insert["columns"]
            Path(file.name).write_bytes(rows)
            rows_of = f"SELECT {columns} FROM file('{file.name}', Native)"
            self._query(f"INSERT INTO {insert['table']} ({columns}) {rows_of}", "CSV")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("X-ClickHouse-Server-Display-Name", "chdb")
        if status >= 400:
            self.send_header("X-ClickHouse-Exception-Code", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def native(said: bytes) -> bytes:
    """An answer of texts and numbers as one block."""

    def text(value: str) -> bytes:
        raw, size = value.encode(), len(value.encode())
        return (bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))) + raw

    answer = json.loads(said) if said else {"meta": [], "data": []}
    found = BLOCK + bytes((len(answer["meta"]), len(answer["data"])))
    for place, column in enumerate(answer["meta"]):
        found += text(column["name"]) + text(column["type"]) + b"\x00"
        for row in answer["data"]:
            found += struct.pack("<I", row[place]) if column["type"] == "UInt32" else text(row[place])
    return found


def main() -> None:
    with session.Session() as database:
        Handler.database = database
        ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
