"""A TCP relay before a server that can be told to misbehave, as networks do.

    with Proxy(server.address) as proxy:
        ... a client that dials proxy.address ...
        proxy.refuse()   # every new request is answered 503
        proxy.cut(1 << 20)   # the next message longer than that breaks off there
        proxy.stall()    # nothing moves any more
        proxy.heal()     # all is well again

For plain HTTP/1.1 without pipelining: what a client sends after it was answered begins a request.
Each connection has a thread for each direction; the proxy itself may be told from any thread.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter

from tests.harness.servers import HOST

ANSWER_503 = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/html\r\ncontent-length: 15\r\n"
    b"connection: close\r\n\r\n<h1>Sorry.</h1>"
)
PIECE = 64 * 1024


class _Pair:
    """A client's connection and ours to the server."""

    def __init__(self, client: socket.socket, server: socket.socket):
        self.client, self.server = client, server
        self.sender: socket.socket | None = server  # who sent last: a server, so a request is next
        self.run = 0  # bytes that it sent without the other saying anything

    def end(self, reset: bool) -> None:
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):
                if reset:  # what is under way is lost, as when a cable is pulled
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.shutdown(socket.SHUT_RDWR)
            side.close()


class Proxy:
    """Listens on a free loopback port for as long as its context lasts."""

    def __init__(self, address: str):
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server((HOST, 0))
        self.address = f"{HOST}:{self._listener.getsockname()[1]}"
        self.done: Counter[str] = Counter()  # "503" and "cut": how often
        self._lock = threading.Lock()
        self._moving = threading.Event()
        self._moving.set()
        self._refusing = False
        self._cut_after, self._cuts = 0, 0
        self._pairs: set[_Pair] = set()
        self._closed = False

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self.heal()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.end(reset=False)

    def refuse(self) -> None:
        """Answer each request that begins from now on with 503."""
        self._refusing = True

    def cut(self, after: int, times: int = 1) -> None:
        """Break a connection off when one side has sent so much in one go; `times` of them."""
        with self._lock:
            self._cut_after, self._cuts = after, times

    def cut_all(self) -> None:
        """Break all connections off."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.end(reset=True)
        self.done["cut"] += len(pairs)

    def stall(self) -> None:
        """Move nothing, and keep all connections."""
        self._moving.clear()

    def heal(self) -> None:
        self._refusing = False
        with self._lock:
            self._cuts = 0
        self._moving.set()

    # ---- its threads ------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, timeout=10)
        except OSError:
            client.close()  # the server is down: so it looks from afar
            return
        server.settimeout(None)
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(client, server)
        with self._lock:
            self._pairs.add(pair)
        back = threading.Thread(target=self._pump, args=(pair, server, client), daemon=True)
        back.start()
        self._pump(pair, client, server)
        back.join()
        pair.end(reset=False)
        with self._lock:
            self._pairs.discard(pair)

    def _pump(self, pair: _Pair, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                self._moving.wait()
                begins = source is pair.client and pair.sender is pair.server
                if begins and self._refusing:
                    self.done["503"] += 1
                    pair.client.sendall(ANSWER_503)
                    pair.client.shutdown(socket.SHUT_WR)
                    while source.recv(PIECE):  # else the answer may be lost with the request
                        pass
                    break
                if pair.sender is not source:
                    pair.sender, pair.run = source, 0
                pair.run += len(piece)
                if self._may_cut(pair.run):
                    sink.sendall(piece[: len(piece) // 2])
                    self.done["cut"] += 1
                    pair.end(reset=True)
                    return
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _may_cut(self, run: int) -> bool:
        with self._lock:
            if self._cuts == 0 or run <= self._cut_after:
                return False
            self._cuts -= 1
            return True
