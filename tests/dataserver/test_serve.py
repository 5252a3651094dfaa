"""`umbel-dataserver serve`: ports, readiness, ending, settings; what it takes to run."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading

import pyarrow.flight as flight
import pytest

from tests.dataserver.server import act, dataserver_bin, get, put, run, table
from tests.dataserver.test_hostile import half_put
from tests.harness.servers import child_env, wait_until


def test_it_says_where_it_is(server):
    assert server.log().count(f"ready {server.location}\n") == 1
    assert server.location.startswith("grpc://127.0.0.1:")


def test_ports_from_11027_upward(serve):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 11027))
            taken.listen()
        except OSError:
            pass  # somebody else has it: just as well
        one, two = serve(port="-1"), serve(port="-1")
    ports = [int(server.location.rsplit(":", 1)[1]) for server in (one, two)]
    assert 11027 < ports[0] < ports[1] < 11127


def test_a_taken_port_and_a_taken_folder_are_said(server, tmp_path):
    port = server.location.rsplit(":", 1)[1]
    done = run("serve", "--port", port, "--data-dir", str(tmp_path / "other"), home=tmp_path)
    assert done.returncode == 1 and f"port {port} of 127.0.0.1 is in use" in done.stderr
    done = run("serve", "--port", "0", "--data-dir", str(server.data), home=tmp_path)
    assert done.returncode == 1 and f"in use by process {server.process.pid}" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "0.0.0.0"], "--token-file, or --allow-anonymous"),
        (["--ssl-certfile", "x"], "go together"),
        (["--token-file", "none"], "cannot open 'none'"),
        (["--port", "70000"], "70000"),
        (["--host", "no.such.host.invalid", "--allow-anonymous"], "no.such.host.invalid"),
    ],
)
def test_what_cannot_be_served_is_said(binary, tmp_path, words, says):
    done = run("serve", "--port", "0", *words, "--data-dir", str(tmp_path / "d"), home=tmp_path)
    assert done.returncode in (1, 2) and says in done.stderr
    assert "Traceback" not in done.stderr


def test_helps_have_examples(binary, tmp_path):
    assert "mock" in run("--help", home=tmp_path).stdout
    for command in ("serve", "put", "list", "drop", "mock"):
        shown = run(command, "--help", home=tmp_path)
        assert shown.returncode == 0 and "Example" in shown.stdout


def test_settings_come_from_the_environment_too(binary, tmp_path):
    shown = run("serve", "--print-config", home=tmp_path, UMBEL_DATASERVER_QUOTA_FILES="7")
    assert "quota-files = 7  # UMBEL_DATASERVER_QUOTA_FILES" in shown.stdout


def test_sigterm_lets_running_calls_end(server):
    """A put that is under way when the server is told to end is whole afterwards."""
    client = server.client()
    data = table(1000)
    writer, _ = client.do_put(flight.FlightDescriptor.for_path("t.x.parquet"), data.schema)
    writer.write_table(data)
    wait_until("the put has begun", server.leftovers, 10)
    server.process.send_signal(signal.SIGTERM)
    wait_until("it is stopping", lambda: "stopping" in server.log(), 10)
    writer.write_table(data)
    writer.close()
    assert server.process.wait(30) == 0
    assert server.files() == ["t.x.parquet"] and server.leftovers() == []


def test_the_grace_has_an_end(serve):
    server = serve("--grace", "0")
    child = half_put(server, 1)
    wait_until("the put has begun", server.leftovers, 10)
    assert server.stop(20) == 0
    child.kill()
    child.wait()
    assert server.files() == [] and server.leftovers() == []


def test_a_second_signal_ends_it_at_once(server):
    child = half_put(server, 1)
    wait_until("the put has begun", server.leftovers, 10)
    server.process.send_signal(signal.SIGTERM)
    wait_until("it is stopping", lambda: "stopping" in server.log(), 10)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) != 0
    child.kill()
    child.wait()


def test_status(server):
    put(server.client(), "t.x.parquet", table())
    status = act(server.client(), "status")
    assert status["files"] == 1 and status["tags"] == {"t": 1} and status["learners"] == 0
    assert status["bytes"] == (server.data / "t.x.parquet").stat().st_size


def test_what_it_takes(serve, say):
    """Idle memory, start, and memory while a large file goes in and out; no bar but a loose one."""
    server = serve()
    idle = server.rss_bytes()
    start = server.start_seconds
    client = server.client()
    big = table(2_000_000)
    peak = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], server.rss_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    put(client, "t.big.parquet", big, max_chunksize=50_000)
    assert get(client, "t.big.parquet").num_rows == 2_000_000
    done.set()
    watcher.join()
    before = server.rss_bytes()
    for number in range(10):
        claim = {"project": "p", "learner": f"l{number}", "tags": ["t"], "of": 10}
        act(client, "assign", claim)
    each = (server.rss_bytes() - before) / 10
    say(
        f"data server: ready after {start:.2f} s, idle {idle / 1e6:.0f} MB (PSS), "
        f"{peak[0] / 1e6:.0f} MB at most while {big.nbytes / 1e6:.0f} MB go in and out, "
        f"{each / 1e6:.1f} MB for each learner's socket"
    )
    assert idle < 120e6


def test_nothing_of_python_runs(server):
    """The program loads Arrow's libraries and no Python."""
    maps = open(f"/proc/{server.process.pid}/maps").read()
    assert "libarrow.so" in maps and "libpython" not in maps and "libarrow_python" not in maps


def test_ready_comes_on_standard_output_alone(binary, tmp_path):
    child = subprocess.Popen(
        [str(dataserver_bin()), "serve", "--port", "0", "--data-dir", str(tmp_path / "d")],
        env=child_env(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert child.stdout.readline().startswith("ready grpc://127.0.0.1:")
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    assert child.stdout.read() == ""
