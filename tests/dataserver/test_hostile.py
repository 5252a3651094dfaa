"""Names that escape, puts that break, quotas, damaged files, strangers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as pq
import pytest

from tests.dataserver.server import act, bearer, get, names, put, run, table
from tests.harness.servers import wait_until

ESCAPES = [
    "../escaped.parquet", "..", ".", "", "/tmp/escaped.parquet", "a/b.parquet", ".umbel/lock",
    ".hidden", "a\0b", "a\nb", "a\\b", "x" * 201,
]  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES)
def test_names_cannot_escape(server, tmp_path, name):
    client = server.client()
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(pa.ArrowInvalid, match="file name"):
        put(client, name, table())
    for call in (
        lambda: get(client, name),
        lambda: act(client, "drop_dataset", name),
        lambda: client.get_flight_info(flight.FlightDescriptor.for_path(name)),
    ):
        with pytest.raises(pa.ArrowInvalid, match="file name"):
            call()
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_links_in_the_folder_lead_nowhere(server, tmp_path):
    pq.write_table(table(), tmp_path / "secret.parquet")
    (server.data / "t.x.parquet").symlink_to(tmp_path / "secret.parquet")
    client = server.client()
    assert names(client, "t") == []
    with pytest.raises(KeyError):
        get(client, "t.x.parquet")
    with pytest.raises(pa.ArrowInvalid, match="is not a file"):
        put(client, "t.x.parquet", table(3))
    with pytest.raises(KeyError):
        act(client, "drop_dataset", "t.x.parquet")
    assert pq.read_table(tmp_path / "secret.parquet") == table()


HALF = """
import sys, pyarrow as pa, pyarrow.flight as flight
client = flight.FlightClient(sys.argv[1])
data = pa.table({"row": list(range(100_000))})
writer, _ = client.do_put(flight.FlightDescriptor.for_path("t.half.parquet"), data.schema)
for _ in range(int(sys.argv[2])):
    writer.write_table(data)
print("half", flush=True)
sys.stdin.read()
"""


def half_put(server, tables: int) -> subprocess.Popen:
    """A client in the middle of a put."""
    child = subprocess.Popen(
        [sys.executable, "-c", HALF, server.location, str(tables)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(pa.__file__).parents[1])},
    )  # fmt: skip
    assert child.stdout.readline() == "half\n"
    return child


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("tables", [0, 1, 20])
def test_clients_killed_in_the_middle_leave_nothing(serve, tmp_path, memory, tables):
    """On a disk, and where syncing takes no time."""
    if memory and not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    folder = tempfile.TemporaryDirectory(dir="/dev/shm" if memory else tmp_path)
    with folder as data:
        server = serve(data=Path(data))
        for number in range(1, 6):
            child = half_put(server, tables)
            wait_until("the put has begun", server.leftovers, 10)
            child.send_signal(signal.SIGKILL)
            child.wait()
            told = "went away before the file was whole"
            wait_until("the put has ended", lambda n=number: server.log().count(told) == n, 10)
            assert server.files() == [] and server.leftovers() == []
        put(server.client(), "t.half.parquet", table())
        assert server.files() == ["t.half.parquet"]


def test_a_server_killed_in_the_middle_has_what_was_whole(serve):
    server = serve()
    put(server.client(), "t.whole.parquet", table(50))
    child = half_put(server, 5)
    wait_until("the put has begun", server.leftovers, 10)
    server.kill()
    child.kill()
    child.wait()
    assert server.leftovers()
    server.start()
    assert server.leftovers() == []
    assert names(server.client(), "t") == ["t.whole.parquet"]
    assert get(server.client(), "t.whole.parquet") == table(50)


def test_puts_of_one_name_at_once(server):
    """Any of them wins, whole."""

    def one(number: int) -> None:
        for _ in range(10):
            put(server.client(), "t.x.parquet", table(2000, number * 10_000), max_chunksize=50)

    stop = threading.Event()
    seen = []

    def read() -> None:
        client = server.client()
        while not stop.is_set():
            try:
                rows = get(client, "t.x.parquet")["row"].to_pylist()
            except KeyError:
                continue
            seen.append(rows == list(range(rows[0], rows[0] + 2000)))

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    stop.set()
    reader.join()
    assert seen and all(seen)
    assert server.files() == ["t.x.parquet"] and server.leftovers() == []


def random_table(size: int) -> pa.Table:
    return pa.table({"b": [os.urandom(1000) for _ in range(size // 1000)]})


def test_quota_of_bytes(serve):
    server = serve("--quota-bytes", "1000000")
    client = server.client()
    put(client, "t.a.parquet", random_table(600_000))
    with pytest.raises(flight.FlightError, match="full: its quota is 1000000 bytes"):
        put(client, "t.b.parquet", random_table(600_000))
    assert server.files() == ["t.a.parquet"] and server.leftovers() == []
    act(client, "drop_dataset", "t.a.parquet")
    put(client, "t.b.parquet", random_table(600_000))
    assert server.files() == ["t.b.parquet"]


def test_quota_of_bytes_holds_for_puts_at_once(serve):
    server = serve("--quota-bytes", "1000000")

    def one(number: int) -> bool:
        try:
            put(server.client(), f"t.{number}.parquet", random_table(300_000), max_chunksize=10)
            return True
        except flight.FlightError:
            return False

    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(one, range(8)))
    assert done <= 3
    assert len(server.files()) == done and server.leftovers() == []
    assert sum(path.stat().st_size for path in server.data.glob("*.parquet")) <= 1_000_000


def test_quotas_of_files_and_of_one_put(serve):
    server = serve("--quota-files", "2", "--put-bytes", "100000", "--put-rows", "500")
    client = server.client()
    for name in ("t.a.parquet", "t.b.parquet"):
        put(client, name, table())
    with pytest.raises(flight.FlightError, match="quota is 2 files"):
        put(client, "t.c.parquet", table())
    put(client, "t.b.parquet", table(20))
    with pytest.raises(flight.FlightError, match="a put may have 100000 bytes"):
        put(client, "t.b.parquet", random_table(200_000))
    with pytest.raises(flight.FlightError, match="a put may have 500 rows"):
        put(client, "t.b.parquet", table(501), max_chunksize=10)
    assert get(client, "t.b.parquet") == table(20)
    assert server.leftovers() == []


def test_damaged_files_are_left_out_and_said(serve, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(table(100_000), data / "t.good.parquet", row_group_size=1000)
    whole = (data / "t.good.parquet").read_bytes()
    (data / "t.text.parquet").write_text("not parquet at all")
    (data / "t.empty.parquet").write_bytes(b"")
    (data / "t.cut.parquet").write_bytes(whole[: len(whole) // 2])
    inside = bytearray(whole)
    inside[1000:60_000] = os.urandom(59_000)
    (data / "t.inside.parquet").write_bytes(inside)
    server = serve(data=data)
    client = server.client()
    # The footer of t.inside is whole; what is wrong with it shows when its rows are read.
    assert names(client, "t") == ["t.good.parquet", "t.inside.parquet"]
    for name in ("t.text.parquet", "t.empty.parquet", "t.cut.parquet"):
        for call in (
            lambda name=name: get(client, name),
            lambda name=name: client.get_flight_info(flight.FlightDescriptor.for_path(name)),
        ):
            with pytest.raises(flight.FlightError, match=f"'{name}' is not a readable Parquet file"):
                call()
        assert server.log().count(f"'{name}'") == 1
    with pytest.raises(flight.FlightError, match="'t.inside.parquet' is not a readable"):
        get(client, "t.inside.parquet")
    assert get(client, "t.good.parquet") == table(100_000)


def test_rows_that_changed_on_the_disk_are_not_given_out(server):
    """Pages that we wrote have checksums."""
    client = server.client()
    put(client, "t.x.parquet", random_table(50_000))
    path = server.data / "t.x.parquet"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 3] ^= 1
    path.write_bytes(whole)
    with pytest.raises(flight.FlightError, match="'t.x.parquet' is not a readable Parquet file"):
        get(client, "t.x.parquet")


def test_damage_anywhere_never_ends_the_server(serve, tmp_path, say):
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(table(2000, metadata={b"huggingface": b"{}"}), data / "t.good.parquet")
    whole = (data / "t.good.parquet").read_bytes()
    server = serve(data=data)
    client = server.client()
    refused = 0
    for seed in range(150):
        bytes_ = bytearray(whole)
        # More in the footer than elsewhere: it is what everything else hangs on.
        at = (len(whole) - 1 - seed * 7 % 1500) if seed % 3 else seed * 131 % len(whole)
        for offset in range(1 + seed % 5):
            bytes_[(at + offset) % len(whole)] ^= 1 << (seed % 8)
        (data / "t.bad.parquet").unlink(missing_ok=True)
        (data / "t.bad.parquet").write_bytes(bytes_)
        try:
            names(client, "t")
            get(client, "t.bad.parquet")
        except (flight.FlightError, pa.ArrowException, KeyError):
            refused += 1
        assert server.process.poll() is None, server.log()[-2000:]
    say(f"damaged files: {refused} of 150 refused, the server lives")
    assert refused > 50
    assert get(client, "t.good.parquet") == table(2000, metadata={b"huggingface": b"{}"})


def lying_batch(kind: str) -> pa.RecordBatch:
    """Texts that only a look at each finds out."""
    offsets = {"offset": [0, 1 << 30, 1], "backwards": [0, 1, -5, 1], "utf8": [0, 1]}[kind]
    buffers = [
        None, pa.py_buffer(np.array(offsets, np.int32).tobytes()), pa.py_buffer(b"\xff"),
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(
        [pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)], ["t"]
    )


@pytest.mark.parametrize("kind", ["offset", "backwards", "utf8"])
def test_a_batch_that_lies_is_refused(server, kind):
    client = server.client()
    batch = lying_batch(kind)
    with pytest.raises(pa.ArrowInvalid, match="a batch is not valid"):
        writer, _ = client.do_put(flight.FlightDescriptor.for_path("t.x.parquet"), batch.schema)
        with writer:
            writer.write_batch(batch)
    assert server.files() == [] and server.leftovers() == []
    assert server.process.poll() is None


def test_a_schema_that_is_too_large_is_refused(server):
    big = table().replace_schema_metadata({"x": "y" * (2 << 20)})
    with pytest.raises(pa.ArrowInvalid, match="the schema with its metadata has"):
        put(server.client(), "t.x.parquet", big)
    assert server.leftovers() == []


# ---------------------------------------------------------------------------------------------
# Tokens and TLS


def test_tokens(serve, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("# of the manager\nfirst-token-of-two\nsecond-token-of-two\n")
    server = serve("--token-file", str(tokens))
    client = server.client()
    good = bearer("second-token-of-two")
    put(client, "t.x.parquet", table(), good)
    assert names(client, "t", options=good) == ["t.x.parquet"]
    for options in (None, bearer("some-other-token"), bearer("second-token-of-tw")):
        for call in (
            lambda o=options: names(client, "t", options=o),
            lambda o=options: get(client, "t.x.parquet", o),
            lambda o=options: put(client, "t.y.parquet", table(), o),
            lambda o=options: act(client, "drop_dataset", "t.x.parquet", o),
            lambda o=options: act(client, "assign", {"learner": "l", "tags": ["t"], "of": 1}, o),
            lambda o=options: list(client.list_actions(o)),
            lambda o=options: client.get_flight_info(
                flight.FlightDescriptor.for_path("t.x.parquet"), o
            ),
        ):
            with pytest.raises(flight.FlightUnauthenticatedError):
                call()
    assert server.files() == ["t.x.parquet"]
    listed = run("list", "--from", server.location, home=tmp_path)
    assert listed.returncode == 1 and "wants a token" in listed.stderr
    words = ("list", "--from", server.location, "--token-file", str(tokens))
    assert "t.x.parquet" in run(*words, home=tmp_path).stdout
    assert "token-of-two" not in server.log()


def test_tls(serve, certs, tmp_path):
    server = serve("--ssl-certfile", str(certs.cert), "--ssl-keyfile", str(certs.key))
    assert server.location.startswith("grpc+tls://127.0.0.1:")
    client = server.client(tls_root_certs=certs.ca.read_bytes())
    put(client, "t.x.parquet", table())
    assert get(client, "t.x.parquet") == table()
    with pytest.raises(flight.FlightUnavailableError):
        names(server.client(), "t")
    with pytest.raises(flight.FlightUnavailableError):
        names(flight.FlightClient(server.location.replace("+tls", "")), "t")
    listed = run("list", "--from", server.location, "--ssl-ca-certfile", str(certs.ca), home=tmp_path)
    assert "t.x.parquet" in listed.stdout, listed.stderr
    assert run("list", "--from", server.location, home=tmp_path).returncode == 1
