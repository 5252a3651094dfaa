"""flwr's records to and from frames. Arrays lie in files and are copied once on the way."""

from __future__ import annotations

import io
import operator
import os
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from .frames import FrameError

_COPY_BYTES_MAX = 1 << 30  # the kernel moves at most 2 GiB at a time


class Input:
    """The file that a call's arrays lie in."""

    def __init__(self, fd: int):
        self._fd = fd

    def read(self, pieces: list[tuple[int, int]]) -> bytes:
        """errors  FrameError: the file is shorter than a piece says."""
        if len(pieces) == 1 and pieces[0][1] <= _COPY_BYTES_MAX:
            data = os.pread(self._fd, pieces[0][1], pieces[0][0])
            if len(data) == pieces[0][1]:
                return data
        # Straight into the bytes object that getvalue() hands out: BytesIO copies only a buffer
        # that others hold too. Its memory is untouched zero pages until the kernel fills it.
        buffer = io.BytesIO(bytes(sum(size for _, size in pieces)))
        with buffer.getbuffer() as view:
            at = 0
            for offset, size in pieces:
                end = at + size
                while at < end:
                    got = os.preadv(self._fd, [view[at : min(end, at + _COPY_BYTES_MAX)]], offset)
                    if not got:
                        raise FrameError(f"input ends before byte {offset + end - at}")
                    at += got
                    offset += got
        return buffer.getvalue()


class Output:
    """The file that a reply's arrays go to, from `end` on."""

    def __init__(self, fd: int, begin: int):
        self._fd = fd
        self.end = begin

    def write(self, data: bytes) -> list[list[int]]:
        """Returns where it lies: the pieces."""
        view = memoryview(data).cast("B")
        if not view:
            return []
        begin = self.end
        while view:
            written = os.pwrite(self._fd, view[:_COPY_BYTES_MAX], self.end)
            self.end += written
            view = view[written:]
        return [[begin, self.end - begin]]


def decode(frame: Any, source: Input) -> RecordDict:
    """errors  FrameError: the frame is not of the protocol; else what flwr's own types raise."""
    records = RecordDict()
    for name, kind, items in _rows(frame, 3, "records"):
        if kind == "a":
            records[name] = ArrayRecord(
                {key: _array(key, rest, source) for key, *rest in _rows(items, 5, name)}
            )
        elif kind == "m":
            records[name] = MetricRecord(dict(_rows(items, 2, name)))
        elif kind == "c":
            records[name] = ConfigRecord(dict(_rows(items, 2, name)))
        else:
            raise FrameError(f"record {name!r}: unknown kind {kind!r}")
    return records


def _rows(frame: Any, width: int, where: str) -> list[list[Any]]:
    if not isinstance(frame, list):
        raise FrameError(f"{where!r} is not a list")
    keys = set()
    for row in frame:
        if not isinstance(row, list) or len(row) != width or not isinstance(row[0], str):
            raise FrameError(f"{where!r}: a row is not a name and {width - 1} more")
        keys.add(row[0])
    if len(keys) != len(frame):
        raise FrameError(f"{where!r}: a name twice")
    return frame


def _array(key: str, rest: list[Any], source: Input) -> Array:
    dtype, shape, stype, pieces = rest
    if not (isinstance(dtype, str) and isinstance(stype, str) and _integers(shape)):
        raise FrameError(f"array {key!r}: dtype, shape or stype")
    if not isinstance(pieces, list) or not all(_integers(p) and len(p) == 2 for p in pieces):
        raise FrameError(f"array {key!r}: pieces are not pairs of integers")
    if any(number < 0 or number >= 1 << 63 for piece in pieces for number in piece):
        raise FrameError(f"array {key!r}: a piece is out of range")
    return Array(dtype=dtype, shape=tuple(shape), stype=stype, data=source.read(pieces))


def _integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int for number in value)


def encode(records: Any, target: Output) -> list[list[Any]]:
    """errors  TypeError, ValueError: what an app put there is not Flower's; OSError: disk full."""
    if not isinstance(records, RecordDict):
        raise TypeError(f"{type(records)} is not a RecordDict")
    frame = []
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            frame.append([name, "a", [_array_row(*item, target) for item in record.items()]])
        elif isinstance(record, MetricRecord):
            frame.append([name, "m", _value_rows(record, (int, float))])
        elif isinstance(record, ConfigRecord):
            frame.append([name, "c", _value_rows(record, (bool, int, float, str, bytes))])
        else:
            raise TypeError(f"record {name!r} is {type(record)}")
    return frame


def _array_row(key: str, value: Any, target: Output) -> list[Any]:
    if not isinstance(value, Array):
        raise TypeError(f"array {key!r} is {type(value)}")
    for text in (value.dtype, value.stype):
        if not isinstance(text, str):
            raise TypeError(f"array {key!r}: dtype or stype is {type(text)}")
    shape = [operator.index(number) for number in value.shape]
    return [key, value.dtype, shape, value.stype, target.write(value.data)]


def _value_rows(record: Any, kinds: tuple[type, ...]) -> list[list[Any]]:
    return [[key, _value(key, value, kinds)] for key, value in record.items()]


def _value(key: str, value: Any, kinds: tuple[type, ...]) -> Any:
    # Exactly the plain types: NumPy's float64 and an IntEnum are floats and integers too.
    if isinstance(value, list):
        plain = [_value(key, item, kinds) for item in value if not isinstance(item, list)]
        if len(plain) != len(value) or len({type(item) for item in plain}) > 1:
            raise TypeError(f"value {key!r} is a list of different types")
        return plain
    if isinstance(value, str) and str in kinds:
        return str.__str__(value)  # of an enumeration's member: its value, not its name
    for kind in kinds:
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"value {key!r} is {type(value)}")
