"""Rounds without a ServerApp: `umbel run` over real SuperNodes, against a model that can be
calculated by hand."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.harness.federation import TOY, Federation, toy_model, toy_sites, umbel_node
from tests.harness.servers import child_env, start_server, umbel_bin

pytestmark = pytest.mark.umbel_only("native rounds are ours")
SECONDS = 120.0


@pytest.fixture(scope="module")
def server(kind, folder):
    with start_server(kind, home=folder / "server") as server:
        yield server


@pytest.fixture(scope="module")
def federation(server, folder):
    with Federation(server, folder / "federation", node=umbel_node("worker")) as federation:
        yield federation


def model_of(path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_fedavg_is_what_can_be_calculated_by_hand(federation, folder):
    out = folder / "trained.npz"
    done = federation.umbel_run(
        toy_model.initial(1, 300), "--rounds", 3, "--watch", "--out", out
    ).result(SECONDS)
    assert done.exit_code == 0, done.output
    want = toy_model.expected(1, 3, 300, toy_sites(2))
    assert toy_model.digest(model_of(out)) == toy_model.digest(want), done.output
    for line in ("round 1/3  train", "round 3/3  evaluate", "2/2 nodes", "checksum", "completed"):
        assert line in done.output
    federation.wait_status(done.run_id, "finished:completed")


def test_a_strategy_that_is_unknown_names_the_nearest(federation):
    done = federation.umbel_run(toy_model.initial(1, 1), "--strategy", "FedAvk").result(SECONDS)
    assert done.exit_code == 1
    assert "FedAvk" in done.output and "FedAvg" in done.output


@pytest.mark.parametrize("pair, rule", [("min_train_nodes=x", "min_train_nodes"), ("eta=1", "eta")])
def test_a_bad_parameter_is_named(federation, pair, rule):
    done = federation.umbel_run(toy_model.initial(1, 1), "--set", pair).result(SECONDS)
    assert done.exit_code == 1 and rule in done.output


def test_a_failing_node_is_named_and_the_others_count(federation, folder):
    out = folder / "half.npz"
    done = federation.umbel_run(
        toy_model.initial(1, 1), "--rounds", 2, "--watch", "--out", out,
        "--run-config", 'client-raise="no disk" client-raise-site=1',
    ).result(SECONDS)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "1/2 nodes" in done.output and "failed: error" in done.output
    want = toy_model.expected(1, 2, 1, toy_sites(2)[:1])
    assert toy_model.digest(model_of(out)) == toy_model.digest(want)


def test_the_run_fails_with_too_few_replies(federation):
    done = federation.umbel_run(
        toy_model.initial(1, 1), "--watch", "--min-train-replies", 2,
        "--run-config", 'client-raise="no disk" client-raise-site=1',
    ).result(SECONDS)  # fmt: skip
    assert done.exit_code == 1
    assert "1 of 2 replies can be used, 2 are needed" in done.output


def test_it_stops_by_its_rule(federation):
    done = federation.umbel_run(
        toy_model.initial(1, 1), "--rounds", 50, "--watch",
        "--stop-metric", "evaluated", "--stop-at-least", 2,
    ).result(SECONDS)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "stopped: evaluated 2 is at least 2" in done.output and "round 3/50" not in done.output


def test_stop_ends_it(federation):
    command = federation.umbel_run(
        toy_model.initial(1, 1), "--rounds", 1000, "--watch", "--run-config", "train-seconds=0.2"
    )
    run_id = command.wait_run_id()
    federation.stop(run_id)
    done = command.result(SECONDS)
    assert done.exit_code == 1 and "stopped" in done.output


def test_an_app_that_is_none_is_refused(federation, tmp_path):
    done = federation.umbel_run(toy_model.initial(1, 1), app=tmp_path).result(SECONDS)
    assert done.exit_code == 1 and "build" in done.output
    assert TOY.exists()


def test_a_round_closes_with_as_many_as_the_plan_wants(federation, folder):
    """Over-selection: two are asked, the first one's reply is enough; the other is late."""
    out = folder / "first.npz"
    output = federation.output()
    gate = output.held["gate"]
    done = federation.umbel_run(
        toy_model.initial(1, 1), "--rounds", 1, "--watch", "--out", out, "--close-train-at", 1,
        "--set", "fraction_evaluate=0",
        "--run-config", f'train-seconds=60.0 slow-site=1 gate="{gate}"',
    ).result(SECONDS)  # fmt: skip
    output.open_gate()
    assert done.exit_code == 0, done.output
    assert "1/2 nodes" in done.output and ": late" in done.output
    want = toy_model.expected(1, 1, 1, toy_sites(2)[:1])
    assert toy_model.digest(model_of(out)) == toy_model.digest(want)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def frames(body: bytes) -> list[bytes]:
    found = []
    while body:
        (size,) = struct.unpack(">I", body[:4])
        found.append(body[4 : 4 + size])
        body = body[4 + size :]
    return found


def test_records_can_be_watched_from_any_of_them(federation):
    done = federation.umbel_run(toy_model.initial(1, 1), "--rounds", 2, "--watch").result(SECONDS)
    assert done.exit_code == 0, done.output
    run = b"\x08" + varint(done.run_id)
    headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
    with federation.server.client() as client:
        for after in range(6):
            body = run + (b"\x10" + varint(after) if after else b"")
            answer = client.post("/v1/umbel/watch-rounds", content=body, headers=headers)
            assert answer.status_code == 200
            told = frames(answer.content)
            assert len(told) == 5 - after  # train and evaluate of two rounds, and the end
            for number, record in enumerate(told, after + 1):
                assert record.startswith(b"\x08" + varint(number))
        known = client.post("/v1/umbel/get-capabilities", content=b"", headers=headers)
        assert b"FedAvg" in known.content and b"FedMedian" in known.content
        model = client.post("/v1/umbel/get-model", content=run, headers=headers)
        assert model.content.startswith(b"PK")
        missing = client.post("/v1/umbel/get-model", content=run + b"\x10\x07", headers=headers)
        assert missing.status_code == 404 and b"kept are those of rounds: 2" in missing.content


def test_gc_removes_the_models_of_ended_runs(folder):
    """They go with their runs, and with no other."""
    home = folder / "gc-server"
    with start_server("umbel", home=home) as server:
        with Federation(server, folder / "gc", node=umbel_node("worker")) as federation:
            done = federation.umbel_run(
                toy_model.initial(1, 1), "--rounds", 1, "--watch"
            ).result(SECONDS)
            assert done.exit_code == 0, done.output

    def kept() -> list[Path]:
        return sorted(home.rglob("models/*/*.npz"))

    def gc(*words: object) -> str:
        command = [umbel_bin(), "superlink", "gc", "--port", server.port, *words]
        result = subprocess.run(
            [str(word) for word in command], env={**child_env(home), "UMBEL_HOME": str(home)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert len(kept()) == 1
    gc("--older-than", 1)
    assert len(kept()) == 1
    assert "1 of 1" in gc("--older-than", 0, "--dry-run")
    assert len(kept()) == 1
    gc("--older-than", 0)
    assert not kept() and not list(home.rglob("models/*"))
