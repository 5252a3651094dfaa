"""Models of `umbel run` in safetensors files, written and read here by what the format says."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from tests.harness.federation import Federation, toy_model, toy_sites, umbel_node
from tests.harness.servers import start_server

pytestmark = pytest.mark.umbel_only("native rounds are ours")
SECONDS = 120.0
DTYPES = {"float32": "F32", "float64": "F64"}


@pytest.fixture(scope="module")
def federation(kind, folder):
    with start_server(kind, home=folder / "server") as server:
        with Federation(server, folder / "federation", node=umbel_node("worker")) as federation:
            yield federation


def write(path, arrays, **more):
    head, data = dict(more), b""
    for name, value in arrays.items():
        raw = value.tobytes()
        offsets = [len(data), len(data) + len(raw)]
        dtype = DTYPES[value.dtype.name]
        head[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def read(path) -> dict[str, np.ndarray]:
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    head, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    arrays, end = {}, 0
    for name, told in head.items():
        begin, end = told["data_offsets"]
        dtype = {short: long for long, short in DTYPES.items()}[told["dtype"]]
        arrays[name] = np.frombuffer(data[begin:end], dtype).reshape(told["shape"])
    assert end == len(data)
    return arrays


@pytest.mark.parametrize("payload_kb", [4, 6000])
def test_a_model_goes_in_and_out(federation, folder, payload_kb):
    initial = toy_model.initial(1, payload_kb)
    path = write(folder / "initial.safetensors", initial, __metadata__={"format": "np"})
    out = folder / "trained.safetensors"
    done = federation.umbel_run(path, "--rounds", 2, "--out", out).result(SECONDS)
    assert done.exit_code == 0, done.output
    trained = read(out)
    want = toy_model.expected(1, 2, payload_kb, toy_sites(2))
    assert list(trained) == list(initial)
    assert toy_model.digest(trained) == toy_model.digest(want)
    assert not out.with_suffix(".safetensors.new").exists()


def test_both_formats_hold_the_same(federation, folder):
    initial = toy_model.initial(1, 4)
    out = folder / "one.npz"
    done = federation.umbel_run(initial, "--rounds", 1, "--out", out).result(SECONDS)
    assert done.exit_code == 0, done.output
    number, run = done.run_id, bytearray(b"\x08")
    while number > 127:
        run.append(number & 127 | 128)
        number >>= 7
    run.append(number)
    headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
    with federation.server.client() as client:
        answer = client.post(
            "/v1/umbel/get-model", content=bytes(run) + b"\x18\x01", headers=headers
        )
        assert answer.status_code == 200
        (folder / "one.safetensors").write_bytes(answer.content)
        unknown = client.post(
            "/v1/umbel/get-model", content=bytes(run) + b"\x18\x09", headers=headers
        )
        assert unknown.status_code == 400 and b"no format 9" in unknown.content
    with np.load(out) as file:
        plain = {name: file[name] for name in file.files}
    assert toy_model.digest(read(folder / "one.safetensors")) == toy_model.digest(plain)


@pytest.mark.parametrize(
    "content, why",
    [
        (b"", "fewer than 8"),
        (b"\xff" * 8 + b"{}", "its head would have"),
        (struct.pack("<Q", 2) + b"[]", "does not begin with"),
        (struct.pack("<Q", 2) + b"{}", "has no arrays"),
        (struct.pack("<Q", 2) + b"{}x", "1 bytes follow"),
    ],
)
def test_a_broken_file_is_refused(federation, tmp_path, content, why):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    done = federation.umbel_run(path).result(SECONDS)
    assert done.exit_code == 1 and why in done.output and "broken.safetensors" in done.output


def test_a_model_that_cannot_be_written_leaves_no_file(federation, tmp_path):
    out = tmp_path / "nowhere" / "model.safetensors"
    done = federation.umbel_run(toy_model.initial(1, 1), "--rounds", 1, "--out", out)
    done = done.result(SECONDS)
    assert done.exit_code == 1 and "nowhere" in done.output
