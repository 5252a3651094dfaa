"""The codec: what goes in comes out, other bytes are refused, and the bytes are the page's."""

from __future__ import annotations

import math
import os
import random
import socket
import struct
import subprocess
import sys

import pytest

from tests.worker.peer import SOURCES, frames

ROUNDS = int(os.environ.get("UMBEL_FRAME_ROUNDS", "400"))


def _random_value(rng: random.Random, depth: int):
    kind = rng.randrange(12 if depth else 9)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind in (1, 2):
        edge = rng.choice([0, 1 << 7, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1])
        return rng.choice([-1, 1]) * max(0, edge - rng.randrange(3))
    if kind == 3:
        return rng.randrange(1 << 63, 1 << 64)
    if kind in (4, 5):
        return rng.choice([rng.uniform(-1e9, 1e9), math.inf, -0.0, 5e-324])
    if kind in (6, 7):
        return "".join(rng.choices("aé€𝄞\0 \"'", k=rng.randrange(9)))
    if kind == 8:
        return rng.randbytes(rng.randrange(40))
    if kind in (9, 10):
        return [_random_value(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {str(rng.random()): _random_value(rng, depth - 1) for _ in range(rng.randrange(5))}


def test_random_values_round_trip():
    for seed in range(ROUNDS):
        value = _random_value(random.Random(seed), 6)
        again = frames.decode(frames.encode(value))
        assert repr(again) == repr(value), seed  # repr: types and -0.0 too


def test_bytes_are_those_of_the_page():
    value = {"a": [None, True, False, -2, (1 << 64) - 1, 1.5, "é", b"\xff"]}
    want = b"m\1\0\0\0" + b"\1\0\0\0a" + b"l\x08\0\0\0" + b"ntf"
    want += b"i" + struct.pack("<q", -2) + b"u" + b"\xff" * 8 + b"d" + struct.pack("<d", 1.5)
    want += b"s\2\0\0\0\xc3\xa9" + b"b\1\0\0\0\xff"
    assert frames.encode(value) == want
    assert frames.decode(want) == value


def test_nan_keeps_its_kind():
    assert math.isnan(frames.decode(frames.encode(math.nan)))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "wanted"),
        (b"x", "unknown type"),
        (b"nn", "too many"),
        (b"i\0\0\0", "wanted"),
        (b"s\5\0\0\0abc", "cannot fit"),
        (b"s\1\0\0\0\xff", "not UTF-8"),
        (b"b\xff\xff\xff\xff", "cannot fit"),
        (b"l\xff\xff\xff\x7fn", "cannot fit"),
        (b"m\1\0\0\0\1\0\0\0", "cannot fit"),
        (b"m\2\0\0\0" + b"\1\0\0\0an" * 2, "twice"),
        (b"l\1\0\0\0" * 17 + b"n", "deeper"),
        (b"m\1\0\0\0\1\0\0\0a" * 17 + b"n", "deeper"),
    ],
)
def test_hostile_bytes_are_refused(data, why):
    with pytest.raises(frames.FrameError, match=why):
        frames.decode(data)


def test_sixteen_deep_is_allowed_both_ways():
    value = None
    for _ in range(16):
        value = [value]
    assert frames.decode(frames.encode(value)) == value
    with pytest.raises(ValueError, match="deeper"):
        frames.encode([value])


def test_cut_and_changed_frames_end_in_an_error_or_a_value():
    rng = random.Random(1)
    for seed in range(ROUNDS):
        data = bytearray(frames.encode(_random_value(random.Random(seed), 6)))
        for _ in range(5):
            with_fault = data[: rng.randrange(len(data) + 1)]
            if with_fault and rng.random() < 0.7:
                with_fault[rng.randrange(len(with_fault))] = rng.randrange(256)
            try:
                frames.decode(with_fault)
            except frames.FrameError:
                pass


@pytest.mark.parametrize(
    "value", [1 << 64, -(1 << 63) - 1, "\ud800", {1: 2}, object(), {"\ud800": 1}, 1j]
)
def test_what_has_no_place_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        frames.encode(value)


def test_descriptors_arrive_with_the_first_byte(tmp_path):
    ours, theirs = socket.socketpair()
    with ours, theirs, open(tmp_path / "file", "w+b") as file:
        for number in range(3):
            frames.send(ours, {"n": number}, (file.fileno(),) * number)
        for number in range(3):
            value, fds = frames.receive(theirs)
            assert (value, len(fds)) == ({"n": number}, number)
            for fd in fds:
                assert os.fstat(fd).st_ino == os.fstat(file.fileno()).st_ino
                assert not os.get_inheritable(fd)
                os.close(fd)


def _open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    "data", [b"\1", b"\4\0\0\0nn", b"\1\0\0\x20", b"\2\0\0\0nn"],
    ids=["head", "body", "size", "value"],
)  # fmt: skip
def test_a_broken_frame_leaves_no_descriptor_open(data):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [data], [0, 0])
        ours.shutdown(socket.SHUT_WR)
        before = _open_fds()
        with pytest.raises(frames.FrameError):
            frames.receive(theirs)
        assert _open_fds() == before


def test_the_end_between_frames_is_no_error():
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        assert frames.receive(theirs) is None


def test_a_bool_is_no_integer():
    with pytest.raises(frames.FrameError, match="n is bool"):
        frames.field({"n": True}, "n", int)


def test_codec_needs_no_flower():
    """The worker must be able to say that flwr is missing."""
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCES)!r}); sys.modules['flwr'] = None\n"
        "from umbel.worker import frames, main\n"
        "try: main._warm_up()\n"
        "except main.Unfit as unfit: print(unfit)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("flwr cannot be imported"), done
