"""A server by HTTPS that answers JSON, with a certificate that only its own authority vouches for."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from s4_operator import certificates


class JsonServer:
    """`answer` says what a path is answered with; `authority` is a file, and `url` names localhost."""

    def __init__(self, folder: Path, answer: Callable[[str], Any]) -> None:
        authority = certificates.make("authority", time.time(), 86_400)
        leaf = certificates.make("server", time.time(), 86_400, ["localhost"], authority)
        self.authority, own = folder / "ca.pem", folder / "server.pem"
        self.authority.write_text(authority.certificate)
        own.write_text(leaf.certificate + leaf.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.say()

            def do_POST(self) -> None:
                self.say()

            def say(self) -> None:
                body = json.dumps(answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
