"""Questions to the SuperLink itself: ordinary messages to node 1 over Flower's public Grid."""

from __future__ import annotations

import time

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

SUPERLINK = 1  # its node id
PROBE_SECONDS = 10.0  # after that much silence the SuperLink is taken for another
PROBE_TTL = 60.0
PAUSE_MIN, PAUSE_MAX = 0.05, 1.0  # seconds between pulls that the server does not hold
LOST_CODES = (3, 4)  # Flower's errors for a reply that exists and cannot be had
PULLS_OF_LOST = 3


class Unanswered(Exception):
    """There is no answer that could be used; the text says why."""


class Refused(Unanswered):
    """The answer is an error."""

    def __init__(self, code: int, reason: str):
        super().__init__(reason or f"error {code}")
        self.code = code


class NotTaken(Unanswered):
    """The message did not get to the SuperLink."""


class Lost(Unanswered):
    """There is an answer, and the SuperLink cannot give it."""


class Silent(Unanswered):
    """The time is over."""


class Channel:
    """One ServerApp's way to its SuperLink. Not for several threads."""

    def __init__(self, grid: Grid):
        self._grid = grid

    def probe(self) -> list[str] | None:
        """Ask whether the SuperLink runs rounds; this sends no array.

        returns  the strategies it runs; None: it does not say which.
        errors   Unanswered: it runs none; and what the Grid raises.
        """
        content = self.ask("query.umbel_probe", RecordDict(), PROBE_TTL, PROBE_SECONDS)
        told = content.config_records.get("umbel", {})
        version, strategies = told.get("protocol"), told.get("strategies")
        # A later version is one that still knows this one's questions.
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise Refused(0, "it does not know the question")
        return list(strategies) if isinstance(strategies, list) else None

    def ask(
        self, kind: str, content: RecordDict, ttl: float, seconds: float | None = None
    ) -> RecordDict:
        """Send one message and wait for its answer: `seconds`, or as long as the message lives.

        errors  Unanswered, and what the Grid raises.
        """
        message = Message(content, SUPERLINK, kind, ttl=ttl)
        sent = list(self._grid.push_messages([message]))
        if len(sent) != 1 or not sent[0]:
            raise NotTaken("it takes no message")
        deadline = time.monotonic() + (ttl if seconds is None else seconds)
        for _ in range(PULLS_OF_LOST):
            reply = self._await(sent, deadline)
            if not reply.has_error():
                return reply.content
            if reply.error.code not in LOST_CODES:
                raise Refused(reply.error.code, reply.error.reason)
        raise Lost(reply.error.reason)

    def _await(self, sent: list[str], deadline: float) -> Message:
        pause = PAUSE_MIN
        while True:
            asked = time.monotonic()
            for reply in self._grid.pull_messages(sent):
                if reply.metadata.reply_to_message_id == sent[0]:
                    return reply
            now = time.monotonic()
            if now >= deadline:
                raise Silent("it does not answer")
            # Umbel has held the pull until there was something to say, or for longer than this.
            time.sleep(max(0.0, min(pause - (now - asked), deadline - now)))
            pause = min(2 * pause, PAUSE_MAX)
