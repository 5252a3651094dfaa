"""`umbel superlink`: where settings come from, what refusals say, how it starts and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import tomllib
from pathlib import Path

import httpx
import pytest

from tests.harness.servers import child_env, free_port, start_server


def command(umbel_bin: Path, *words: str, home: Path, **variables: str):
    env = child_env(home)
    env.update(UMBEL_HOME=str(home), **variables)
    return subprocess.run(
        [str(umbel_bin), *words], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_flag_wins_over_the_environment_and_that_over_the_file(umbel_bin, tmp_path):
    config = tmp_path / "umbel.toml"
    config.write_text('[superlink]\nport = 1111\nthreads = 3\ncontrol-from = ["10.0.0.0/8"]\n')
    shown = command(
        umbel_bin, "superlink", "--config", str(config), "--port", "3333", "--print-config",
        home=tmp_path, UMBEL_SUPERLINK_PORT="2222", UMBEL_SUPERLINK_LOG_LEVEL="debug",
    ).stdout  # fmt: skip
    assert "port = 3333  # flag" in shown
    assert 'log-level = "debug"  # UMBEL_SUPERLINK_LOG_LEVEL' in shown
    assert f"threads = 3  # {config}" in shown
    assert 'control-from = ["10.0.0.0/8"]' in shown
    assert "insecure = false  # default" in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[superlink]\nprot = 1\n", "no setting 'prot'"),
        ("[superlink]\nport = 99999\n", "not a number in [0, 65535]"),
        ("[superlink]\nisolation = 'thread'\n", "not one of subprocess, process"),
        ("[superlink\n", "line 1"),
        ("superlink = 3\n", "not a table"),
    ],
)
def test_a_bad_file_is_named(umbel_bin, tmp_path, text, expected):
    config = tmp_path / "umbel.toml"
    config.write_text(text)
    refused = command(umbel_bin, "superlink", "--config", str(config), home=tmp_path)
    assert refused.returncode == 2
    assert expected in refused.stderr
    assert str(config) in refused.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--simulation"], "simulation is not served"),
        (["--fleet-api-address=0.0.0.0:9092"], "gRPC Fleet API is not served"),
        (["--host", "0.0.0.0"], "beyond loopback"),
        ([], "--ssl-certfile"),
        (["--insecure", "--enable-supernode-auth"], "needs TLS"),
        (["--insecure", "--superexec-auth-secret-file", "x"], "--isolation process"),
        (["--insecure", "--control-from", "10.0.0.0/99"], "10.0.0.0/99"),
    ],
)
def test_what_is_not_served_is_said_in_one_sentence(umbel_bin, tmp_path, words, expected):
    refused = command(umbel_bin, "superlink", *words, home=tmp_path)
    assert refused.returncode == 2
    assert expected in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_a_second_owner_is_told_the_first_ones_pid(umbel_bin, tmp_path):
    with start_server("umbel", home=tmp_path) as server:
        state = next((tmp_path / "superlink").iterdir())
        second = command(
            umbel_bin, "superlink", "--insecure", "--port", str(free_port()),
            "--state-dir", str(state), home=tmp_path,
        )  # fmt: skip
        assert second.returncode == 1
        assert str(server.pid) in second.stderr


def test_sigterm_ends_it_with_status_0(umbel_bin, tmp_path):
    with start_server("umbel", home=tmp_path) as server:
        os.kill(server.pid, signal.SIGTERM)
        assert server.proc.wait(30) == 0


def test_memory_keeps_nothing(umbel_bin, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with start_server(
        "umbel", home=tmp_path / "home", database=":memory:", env={"TMPDIR": str(scratch)}
    ) as server:
        assert httpx.get(server.base_url + "/readyz").status_code == 200
        os.kill(server.pid, signal.SIGTERM)
        server.proc.wait(30)
    assert not list(scratch.iterdir())
    assert not (tmp_path / "home").exists() or not list((tmp_path / "home").rglob("state.db"))


def test_gc_shows_before_it_drops(umbel_bin, tmp_path):
    with start_server("umbel", home=tmp_path) as server:
        port = server.port
    shown = command(umbel_bin, "superlink", "gc", "--port", str(port), "--dry-run", home=tmp_path)
    assert shown.returncode == 0
    assert "would drop 0 of 0 ended runs" in shown.stdout
    missing = command(umbel_bin, "superlink", "gc", "--port", "1", home=tmp_path)
    assert missing.returncode == 1
    assert "there is no state" in missing.stderr


@pytest.mark.parametrize("name", ["superlink", "supernode"])
def test_of_a_flag_given_twice_the_last_counts(umbel_bin, tmp_path, name):
    words = ["--insecure", "--port", "1", "--host", "a", "--port", "2", "--host=b"]
    shown = command(umbel_bin, name, *words, "--print-config", home=tmp_path)
    assert shown.returncode == 0, shown.stderr
    printed = tomllib.loads(shown.stdout)[name]
    assert (printed["port"], printed["host"]) == (2, "b")


@pytest.mark.parametrize(
    "words",
    [
        ["superlink", "--no-such-flag"],
        ["superlink", "--port", "x"],
        ["superlink", "gc", "--no-such-flag"],
        ["supernode", "--isolation", "thread"],
        ["supernode", "status", "--no-such-flag"],
        ["no-such-command"],
    ],
)
def test_bad_usage_is_status_2(umbel_bin, tmp_path, words):
    refused = command(umbel_bin, *words, home=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr


@pytest.mark.parametrize("words", [["superlink"], ["supernode"], ["superlink", "gc"]])
def test_help_is_status_0(umbel_bin, tmp_path, words):
    shown = command(umbel_bin, *words, "--help", home=tmp_path)
    assert shown.returncode == 0 and shown.stdout and not shown.stderr
