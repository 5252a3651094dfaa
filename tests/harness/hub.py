"""A SuperLink that got its apps from Flower's hub, as far as its nodes can tell: a front before one
of ours that adds reviewers' signatures to what get-fab answers.

    with Hub(server.address, {"fpk_...": private_key}) as hub:
        ... nodes that dial hub.address ...

One thread for each connection; signs with Ed25519 over the time and the FAB's hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.proto.fab_pb2 import GetFabResponse

from tests.harness.servers import HOST

PATIENCE = 60.0


def verification(key: Ed25519PrivateKey, fab: bytes) -> str:
    signed_at = int(time.time())
    signature = key.sign(signed_at.to_bytes(8, "big") + hashlib.sha256(fab).digest())
    text = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    return json.dumps({"signature": text, "signed_at": signed_at})


class Hub:
    """Listens on a free loopback port for as long as its context lasts."""

    def __init__(self, address: str, reviewers: Mapping[str, Ed25519PrivateKey]):
        client = httpx.Client(base_url=f"http://{address}", timeout=PATIENCE)

        class Front(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                keep = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                answer = client.post(self.path, content=body, headers=keep)
                content = answer.content
                if self.path.endswith("/get-fab") and answer.status_code == 200:
                    content = self.signed(content)
                self.send_response(answer.status_code)
                if "content-type" in answer.headers:
                    self.send_header("content-type", answer.headers["content-type"])
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def signed(self, content: bytes) -> bytes:
                response = GetFabResponse.FromString(content)
                response.fab.verifications["valid_license"] = "yes"
                for name, key in reviewers.items():
                    response.fab.verifications[name] = verification(key, response.fab.content)
                return response.SerializeToString()

            def log_message(self, *_: object) -> None:
                pass

        self._client = client
        self._server = ThreadingHTTPServer((HOST, 0), Front)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.address = f"{HOST}:{self._server.server_address[1]}"

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._client.close()
