"""Records of flwr to frames and back; arrays by way of files."""

from __future__ import annotations

import enum
import os

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from tests.worker.peer import frames, records


@pytest.fixture
def file(tmp_path):
    with open(tmp_path / "arrays", "w+b") as one:
        yield one


def _round_trip(value: RecordDict, fd: int) -> RecordDict:
    frame = frames.decode(frames.encode(records.encode(value, records.Output(fd, 0))))
    return records.decode(frame, records.Input(fd))


def test_every_kind_of_value_round_trips(file):
    value = RecordDict(
        {
            "z": ConfigRecord(
                {"b": True, "i": -1, "u": (1 << 64) - 1, "d": 0.1, "s": "é", "y": b"\0\xff"}
                | {"lb": [True, False], "li": [1, -2], "lu": [1 << 63, 1], "ld": [0.5], "e": []}
                | {"ls": ["", "a"], "ly": [b"", b"a"]}
            ),
            "a": MetricRecord({"z": 1, "a": 2.5, "l": [1, 2], "d": [1.5]}),
            "m": ArrayRecord({f"{n}": Array(np.full((n, 2), n, np.float16)) for n in range(4)}),
            "": ConfigRecord(),
        }
    )
    again = _round_trip(value, file.fileno())
    assert again == value
    assert list(again) == list(value)
    for name in value:
        assert list(again[name]) == list(value[name])
        kinds = [type(item) for item in value[name].values()]
        assert [type(item) for item in again[name].values()] == kinds


def test_subclasses_travel_as_their_plain_kind(file):
    class Color(str, enum.Enum):
        RED = "red"

    record = ConfigRecord({"f": np.float64(0.5), "e": enum.IntEnum("E", "A").A, "s": Color.RED})
    again = _round_trip(RecordDict({"c": record}), file.fileno())["c"]
    assert [(type(v), v) for v in again.values()] == [(float, 0.5), (int, 1), (str, "red")]


def test_pieces_are_joined_in_their_order(file):
    data = os.urandom(10_000)
    order = [(0, 4000), (9000, 1000), (4000, 5000)]
    file.write(data)
    file.flush()
    row = ["w", "float32", [3], "numpy.ndarray", [list(piece) for piece in order]]
    found = records.decode([["r", "a", [row]]], records.Input(file.fileno()))["r"]["w"]
    assert type(found.data) is bytes
    assert found.data == b"".join(data[at : at + size] for at, size in order)


def test_reading_pieces_takes_one_copy(file):
    import tracemalloc

    size = 8 << 20
    file.truncate(size)
    pieces = [(at, 1 << 20) for at in range(0, size, 1 << 20)]
    tracemalloc.start()
    data = records.Input(file.fileno()).read(pieces)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data) == size
    assert peak < 1.1 * size


def test_output_goes_behind_what_is_there(file):
    output = records.Output(file.fileno(), 100)
    assert output.write(b"abc") == [[100, 3]]
    assert output.write(b"") == []
    assert output.write(memoryview(np.arange(2, dtype=np.int32))) == [[103, 8]]
    assert output.end == 111
    assert os.pread(file.fileno(), 3, 100) == b"abc"


@pytest.mark.parametrize(
    "frame",
    [
        None,
        [["r", "a"]],
        [["r", "q", []]],
        [[1, "m", []]],
        [["r", "m", []]] * 2,
        [["r", "m", [["a", 1], ["a", 2]]]],
        [["r", "a", [["w", "f", [1], "n", [[0, 11]]]]]],  # beyond the file's end
        [["r", "a", [["w", "f", [1], "n", [[0, 5], [8, 5]]]]]],
        [["r", "a", [["w", "f", [1], "n", [[-1, 1]]]]]],
        [["r", "a", [["w", "f", [1], "n", [[0, 1 << 63]]]]]],
        [["r", "a", [["w", "f", [True], "n", []]]]],
        [["r", "a", [["w", "f", 1, "n", []]]]],
        [["r", "a", [["w", "f", [1], "n", [[0]]]]]],
    ],
)
def test_hostile_records_are_refused(frame, file):
    file.write(bytes(10))
    file.flush()
    with pytest.raises(frames.FrameError):
        records.decode(frame, records.Input(file.fileno()))


@pytest.mark.parametrize("pair", [["a", True], ["a", None], ["a", "text"], ["a", [1, "x"]]])
def test_values_that_flower_refuses_are_refused_by_flower(pair, file):
    with pytest.raises(TypeError):
        records.decode([["r", "m", [pair]]], records.Input(file.fileno()))
