"""What the commands say: progress to standard output, results to a file, failures in sentences."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Failed(Exception):
    """What is wrong and the way out, in one sentence; `all` has every one that was found.

    passes  another time may go better: somebody else was not there
    """

    def __init__(self, *sentences: str, passes: bool = False):
        self.all = list(sentences)
        self.passes = passes
        more = len(sentences) - 1
        super().__init__(sentences[0] + (f" (and {more} more: see the log)" if more else ""))


def say(text: str) -> None:
    print(text, flush=True)


def one_line(text: str, chars: int = 600) -> str:
    text = " ".join(text.split())
    return text if len(text) <= chars else text[: chars - 1] + "…"


def write_whole(path: Path, data: bytes) -> None:
    """By rename: nobody ever sees half of it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")
