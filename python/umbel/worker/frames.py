"""Values, and frames of them on a Unix stream socket: both ends of docs/worker-protocol.md."""

from __future__ import annotations

import array
import os
import socket
import struct
from typing import Any

FRAME_BYTES_MAX = 256 << 20
DEPTH_MAX = 16  # of lists and maps in each other
FDS_MAX = 4  # that a frame may carry

_U32 = struct.Struct("<I")
_I64 = struct.Struct("<q")
_U64 = struct.Struct("<Q")
_F64 = struct.Struct("<d")
_FD_BYTES = array.array("i").itemsize


class FrameError(Exception):
    """The peer broke the protocol; the message says where."""


class ClosedError(FrameError):
    """The peer closed the socket in the middle of a frame."""


def encode(value: Any) -> bytes:
    """errors  ValueError, TypeError: the value has no place in a frame."""
    out = bytearray()
    _encode(value, out, 0)
    if len(out) > FRAME_BYTES_MAX:
        raise ValueError(f"{len(out)} bytes in a frame, at most {FRAME_BYTES_MAX}")
    return bytes(out)


def _encode(value: Any, out: bytearray, depth: int) -> None:
    if value is None:
        out += b"n"
    elif value is True:
        out += b"t"
    elif value is False:
        out += b"f"
    elif isinstance(value, int):
        if -(1 << 63) <= value < 1 << 63:
            out += b"i" + _I64.pack(value)
        elif 0 <= value < 1 << 64:
            out += b"u" + _U64.pack(value)
        else:
            raise ValueError(f"integer {value:#x} does not fit 64 bits")
    elif isinstance(value, float):
        out += b"d" + _F64.pack(value)
    elif isinstance(value, str):
        out += b"s"
        _encode_text(value, out)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        out += b"b" + _U32.pack(len(value)) + value
    elif isinstance(value, (list, tuple)):
        if depth == DEPTH_MAX:
            raise ValueError(f"nested deeper than {DEPTH_MAX}")
        out += b"l" + _U32.pack(len(value))
        for item in value:
            _encode(item, out, depth + 1)
    elif isinstance(value, dict):
        if depth == DEPTH_MAX:
            raise ValueError(f"nested deeper than {DEPTH_MAX}")
        out += b"m" + _U32.pack(len(value))
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} is not text")
            _encode_text(key, out)
            _encode(item, out, depth + 1)
    else:
        raise TypeError(f"{type(value)} has no place in a frame")


def _encode_text(text: str, out: bytearray) -> None:
    raw = text.encode("utf-8")
    out += _U32.pack(len(raw)) + raw


def decode(data: bytes | bytearray) -> Any:
    """errors  FrameError: the byte and what is wrong there."""
    reader = _Reader(data)
    value = reader.value(0)
    if reader.at != len(reader.data):
        reader.fail(f"{len(reader.data) - reader.at} bytes too many")
    return value


class _Reader:
    def __init__(self, data: bytes | bytearray):
        self.data = memoryview(data)
        self.at = 0

    def fail(self, what: str) -> None:
        raise FrameError(f"byte {self.at}: {what}")

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.at:
            self.fail(f"{size} bytes wanted, {len(self.data) - self.at} left")
        begin, self.at = self.at, self.at + size
        return self.data[begin : self.at]

    def count(self, each: int) -> int:
        """Of items that take at least `each` bytes: a lie is seen before memory is spent on it."""
        count = _U32.unpack(self.take(4))[0]
        if count * each > len(self.data) - self.at:
            self.fail(f"{count} items cannot fit")
        return count

    def text(self) -> str:
        raw = self.take(self.count(1))
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            self.fail("text is not UTF-8")
            raise

    def value(self, depth: int) -> Any:
        kind = self.take(1)[0]
        if kind == 0x69:  # i
            return _I64.unpack(self.take(8))[0]
        if kind == 0x73:  # s
            return self.text()
        if kind == 0x64:  # d
            return _F64.unpack(self.take(8))[0]
        if kind == 0x6E:  # n
            return None
        if kind == 0x74:  # t
            return True
        if kind == 0x66:  # f
            return False
        if kind == 0x75:  # u
            return _U64.unpack(self.take(8))[0]
        if kind == 0x62:  # b
            return bytes(self.take(self.count(1)))
        if kind not in (0x6C, 0x6D):  # l, m
            self.fail(f"unknown type {kind:#04x}")
        if depth == DEPTH_MAX:
            self.fail(f"nested deeper than {DEPTH_MAX}")
        if kind == 0x6C:
            return [self.value(depth + 1) for _ in range(self.count(1))]
        found: dict[str, Any] = {}
        for _ in range(self.count(5)):
            key = self.text()
            if key in found:
                self.fail(f"key {key!r} twice")
            found[key] = self.value(depth + 1)
        return found


def field(frame: Any, key: str, kind: Any, where: str = "frame") -> Any:
    """`frame[key]`, of one of the types `kind`. A bool never passes for an integer."""
    if not isinstance(frame, dict) or key not in frame:
        raise FrameError(f"{where}: no {key}")
    value = frame[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise FrameError(f"{where}: {key} is {type(value).__name__}")
    return value


def send(sock: socket.socket, value: Any, fds: tuple[int, ...] = ()) -> None:
    """Sends a frame; the descriptors go with its first byte, and stay open here."""
    body = encode(value)
    data = memoryview(_U32.pack(len(body)) + body)
    if fds:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        data = data[sock.sendmsg([data], [rights]) :]
    # All of it was taken: sendall would send nothing once more, and learn of a peer that ended since.
    if data:
        sock.sendall(data)


def receive(sock: socket.socket) -> tuple[Any, list[int]] | None:
    """The next frame and the descriptors it carried; None: the peer closed between frames.

    errors  FrameError (descriptors are closed again), OSError.
    """
    fds: list[int] = []
    try:
        head = b""
        while len(head) < 4:
            part = _receive_with_fds(sock, 4 - len(head), fds)
            if not part:
                if not head:
                    return None
                raise ClosedError("closed within a frame")
            head += part
        size = _U32.unpack(head)[0]
        if size > FRAME_BYTES_MAX:
            raise FrameError(f"a frame of {size} bytes, at most {FRAME_BYTES_MAX}")
        body = bytearray(size)
        rest = memoryview(body)
        while rest:
            got = sock.recv_into(rest)
            if not got:
                raise ClosedError("closed within a frame")
            rest = rest[got:]
        return decode(body), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _receive_with_fds(sock: socket.socket, size: int, fds: list[int]) -> bytes:
    part, extra, flags, _ = sock.recvmsg(
        size, socket.CMSG_SPACE(FDS_MAX * _FD_BYTES), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.extend(array.array("i", data[: len(data) - len(data) % _FD_BYTES]))
    if flags & socket.MSG_CTRUNC:
        raise FrameError(f"more than {FDS_MAX} descriptors with a frame")
    return part
