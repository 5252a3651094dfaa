"""A well-behaved client that goes on while others do not: health checks and a node's heartbeats."""

from __future__ import annotations

import threading
import time

from flwr.proto import fleet_pb2, heartbeat_pb2

from tests.conformance import wire
from tests.harness.servers import Server

EVERY = 0.1  # seconds
TIMEOUT = 5.0  # Flower's own for a heartbeat


class Prober:
    """`with Prober(server) as prober: ...`, then `prober.check(...)`."""

    def __init__(self, server: Server):
        self.server = server
        self.key = wire.NodeKey("p256")
        self.seconds: dict[str, list[float]] = {"kept": [], "fresh": [], "heartbeat": []}
        self.failures: list[str] = []
        self._begin = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober")

    def __enter__(self) -> Prober:
        self._client = self.server.client(timeout=TIMEOUT)
        self._fleet("register-node", fleet_pb2.RegisterNodeFleetRequest(public_key=self.key.pem))
        request = fleet_pb2.ActivateNodeRequest(public_key=self.key.pem, heartbeat_interval=30)
        reply = self._fleet("activate-node", request)
        self.node_id = fleet_pb2.ActivateNodeResponse.FromString(reply.content).node_id
        self._begin = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def _fleet(self, name: str, message):
        headers = [("content-type", wire.PROTOBUF), *self.key.headers()]
        reply = self._client.post(
            f"/v1/fleet/{name}", content=message.SerializeToString(), headers=headers
        )
        reply.raise_for_status()
        return reply

    def _health(self, client) -> None:
        client.get("/health").raise_for_status()

    def _fresh(self) -> None:
        with self.server.client(timeout=TIMEOUT) as client:
            self._health(client)

    def _heartbeat(self) -> None:
        request = heartbeat_pb2.SendNodeHeartbeatRequest(
            node=wire.node(self.node_id), heartbeat_interval=30
        )
        reply = self._fleet("send-node-heartbeat", request)
        answer = heartbeat_pb2.SendNodeHeartbeatResponse.FromString(reply.content)
        if not answer.success:
            raise RuntimeError("success=false")

    def _run(self) -> None:
        asks = {
            "kept": lambda: self._health(self._client),
            "fresh": self._fresh,
            "heartbeat": self._heartbeat,
        }
        while not self._stop.wait(EVERY):
            for name, ask in asks.items():
                begin = time.monotonic()
                try:
                    ask()
                except Exception as error:  # whatever it is, it is a failure of the server
                    after = begin - self._begin
                    self.failures.append(f"{name} at {after:.1f} s: {type(error).__name__} {error}")
                self.seconds[name].append(time.monotonic() - begin)

    def summary(self) -> str:
        parts = []
        for name, all_seconds in self.seconds.items():
            times = sorted(all_seconds)
            middle, last = times[len(times) // 2], times[-1]
            parts.append(f"{name} p50 {1e3 * middle:.1f} max {1e3 * last:.0f} ms of {len(times)}")
        return ", ".join(parts)

    def check(self, seconds_max: float) -> None:
        """Every answer was right and came in time, and there were some."""
        assert not self.failures, self.failures[:5]
        for name, times in self.seconds.items():
            assert len(times) >= 5, f"{name}: asked {len(times)} times"
            assert max(times) <= seconds_max, f"{name}: {max(times):.2f} s; {self.summary()}"
