"""One learner, one partition: sockets that serve a learner's part and nothing else."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.dataserver.server import act, bearer, get, names, put, run, table


def assign(server, learner: str, of: int, project: str = "p", tags=("t",), options=None, **more):
    claim = {"project": project, "learner": learner, "tags": list(tags), "of": of, **more}
    return act(server.client(), "assign", claim, options)


def release(server, learner: str, project: str = "p"):
    return act(server.client(), "release", {"project": project, "learner": learner})


def rows_of(assignment: dict, *tags: str) -> list[int]:
    """As a FLOps learner gets them."""
    client = flight.FlightClient(assignment["location"])
    criteria = json.dumps({"data_tags": list(tags) or ["t"]}).encode()
    rows = []
    for info in client.list_flights(criteria=criteria):
        part = client.do_get(info.endpoints[0].ticket).read_all()
        assert part.num_rows == info.total_records
        rows += part["row"].to_pylist()
    return rows


@pytest.fixture
def filled(server):
    """Files t.0 to t.3 of 10, 20, 30 and 40 rows, one after the other."""
    first = 0
    for number in range(4):
        put(server.client(), f"t.{number}.parquet", table((number + 1) * 10, first))
        first += (number + 1) * 10
    return server


def test_whole_files_when_there_are_enough(filled):
    parts = [rows_of(assign(filled, f"l{i}", 2)) for i in range(2)]
    assert sorted(parts[0] + parts[1]) == list(range(100))
    assert [len(part) for part in parts] == [50, 50]


@pytest.mark.parametrize("of", [1, 3, 5, 7])
def test_every_row_has_exactly_one_learner(filled, of):
    assignments = [assign(filled, f"l{i}", of) for i in range(of)]
    parts = [rows_of(assignment) for assignment in assignments]
    assert sorted(row for part in parts for row in part) == list(range(100))
    assert [len(part) for part in parts] == [assignment["rows"] for assignment in assignments]
    assert len({assignment["location"] for assignment in assignments}) == of


def test_rows_of_large_files_are_split_over_batches(server):
    put(server.client(), "t.x.parquet", table(200_000), max_chunksize=30_000)
    parts = [rows_of(assign(server, f"l{i}", 3)) for i in range(3)]
    assert parts == [list(range(first, 200_000, 3)) for first in range(3)]


def test_metadata_and_nested_columns_survive_a_split(server):
    images = [{"bytes": bytes([i]), "path": None} for i in range(9)]
    made = pa.table({
        "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "label": pa.array(["a", "b", "c"] * 3).dictionary_encode(),
    }).replace_schema_metadata({"huggingface": "{}"})  # fmt: skip
    put(server.client(), "t.x.parquet", made)
    client = flight.FlightClient(assign(server, "l", 2, index=1)["location"])
    part = get(client, "t.x.parquet")
    assert part.schema.metadata == {b"huggingface": b"{}"}
    assert part.to_pylist() == made.to_pylist()[1::2]


def test_other_projects_have_parts_of_their_own(filled):
    one, other = assign(filled, "l", 2), assign(filled, "l", 3, project="q")
    assert one["location"] != other["location"]
    assert (one["rows"], other["rows"]) == (50, 40)


def test_a_learner_that_asks_again_has_the_same(filled):
    first = assign(filled, "l0", 2)
    reading = flight.FlightClient(first["location"])
    assert assign(filled, "l0", 2) == first
    assert names(reading, "t")  # nothing broke for who has the socket open


def test_parts_are_stable_over_kills_of_the_server(filled):
    before = {name: assign(filled, name, 3) for name in ("a", "b", "c")}
    rows = {name: rows_of(assignment) for name, assignment in before.items()}
    filled.kill()
    filled.start()
    assert act(filled.client(), "assignments") == list(before.values())
    assert {name: rows_of(assignment) for name, assignment in before.items()} == rows
    assert assign(filled, "b", 3) == before["b"]
    assert filled.stop() == 0
    assert not any(Path(a["location"].removeprefix("grpc+unix://")).exists() for a in before.values())
    filled.start()
    assert {name: rows_of(assignment) for name, assignment in before.items()} == rows


def test_puts_and_drops_do_not_reach_a_deal(filled):
    one = assign(filled, "one", 2)
    before = rows_of(one)
    client = filled.client()
    for name in filled.files():
        put(client, name, table(5, 10_000))
    put(client, "t.new.parquet", table(5, 20_000))
    act(client, "drop_dataset", "t.0.parquet")
    assert rows_of(one) == before
    two = rows_of(assign(filled, "two", 2))
    assert sorted(before + two) == list(range(100))
    for learner in ("one", "two"):
        assert release(filled, learner) == {"released": True}
    assert min(rows_of(assign(filled, "one", 1))) >= 10_000


def test_release_takes_the_socket_away(filled):
    one = assign(filled, "one", 2)
    path = Path(one["location"].removeprefix("grpc+unix://"))
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert release(filled, "one") == {"released": True}
    assert not path.parent.exists()
    with pytest.raises(flight.FlightUnavailableError):
        rows_of(one)
    assert release(filled, "one") == {"released": False}
    assert act(filled.client(), "assignments") == []


def test_the_socket_serves_its_part_and_nothing_else(filled, tmp_path):
    mine = assign(filled, "mine", 2)
    theirs = assign(filled, "theirs", 2)
    other = f"{theirs['files'][0]['name']}"
    put(filled.client(), "u.secret.parquet", table())
    client = flight.FlightClient(mine["location"])
    assert names(client, "t") == [file["name"] for file in mine["files"]]
    assert names(client, "u") == []
    for name in (other, "u.secret.parquet", "../x", ".umbel/assignments.json"):
        with pytest.raises(KeyError, match="the learner's part has no file"):
            get(client, name)
        with pytest.raises(KeyError):
            client.get_flight_info(flight.FlightDescriptor.for_path(name))
    before = filled.files()
    with pytest.raises(flight.FlightUnauthorizedError, match="takes nothing"):
        put(client, "t.mine.parquet", table())
    for kind in ("drop_dataset", "assign", "release", "assignments", "status"):
        with pytest.raises(flight.FlightUnauthorizedError, match="takes nothing"):
            act(client, kind, mine["files"][0]["name"])
    assert list(client.list_actions()) == []
    with pytest.raises(pa.ArrowInvalid, match="JSON object"):
        list(client.list_flights(b""))
    assert filled.files() == before


def test_tags_that_no_file_has_are_answered_by_those_there_are(filled):
    put(filled.client(), "u.x.parquet", table())
    with pytest.raises(KeyError, match=r"one of the tags \[v, w\]; there are: t \(4 files\), u \(1 file"):
        assign(filled, "l", 1, tags=("v", "w"))
    assert act(filled.client(), "assignments") == []


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        ({"learner": "l", "tags": [], "of": 1}, "name at least one data tag"),
        ({"learner": "l", "tags": ["t"], "of": 0}, "'of' must be"),
        ({"tags": ["t"], "of": 1}, "'learner' must be a text"),
        ({"learner": "l", "tags": ["t"], "of": 2, "index": 2}, "'index' must be"),
        ({"learner": "l", "tags": ["t"], "of": 101}, "cannot be shared out among 101 learners"),
    ],
)
def test_claims_that_cannot_be(filled, claim, says):
    with pytest.raises((pa.ArrowInvalid, flight.FlightError), match=says):
        act(filled.client(), "assign", claim)
    assert act(filled.client(), "assignments") == []


def test_parts_that_are_taken(filled):
    assign(filled, "one", 2, index=1)
    with pytest.raises(pa.ArrowException, match="part 1 of project 'p' is with learner 'one'"):
        assign(filled, "two", 2, index=1)
    with pytest.raises(flight.FlightError, match="release its learners first"):
        assign(filled, "two", 3)
    assign(filled, "two", 2)
    with pytest.raises(flight.FlightError, match="all 2 parts of project 'p' are taken"):
        assign(filled, "three", 2)


def test_a_bound_on_sockets(serve):
    server = serve("--learners-max", "1")
    put(server.client(), "t.x.parquet", table())
    assign(server, "one", 2)
    with pytest.raises(flight.FlightError, match="raise --learners-max"):
        assign(server, "two", 2)
    assert assign(server, "one", 2)["rows"] == 5


def test_a_folder_too_long_for_sockets_is_said(binary, tmp_path):
    words = ("--data-dir", str(tmp_path / "d"), "--learner-sockets", str(tmp_path / ("x" * 100)))
    done = run("serve", "--port", "0", *words, home=tmp_path)
    assert done.returncode == 2 and "too long for sockets" in done.stderr


def test_a_data_folder_too_long_for_sockets_has_them_elsewhere(serve, tmp_path):
    server = serve(data=tmp_path / ("x" * 100))
    put(server.client(), "t.x.parquet", table())
    assignment = assign(server, "l", 1)
    assert rows_of(assignment) == list(range(10))
    folder = Path(assignment["location"].removeprefix("grpc+unix://")).parent.parent
    assert folder.parent == Path("/tmp") and folder.stat().st_mode & 0o777 == 0o711
    server.kill()
    server.start()
    assert rows_of(assignment) == list(range(10))
    # What a learner is shown stays until it is released, whatever becomes of the server.
    release(server, "l")
    assert server.stop() == 0
    assert not folder.exists()


def test_assigning_needs_the_token_and_reading_the_socket_does_not(serve, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("token-of-the-manager\n")
    server = serve("--token-file", str(tokens))
    options = bearer("token-of-the-manager")
    put(server.client(), "t.x.parquet", table(), options)
    with pytest.raises(flight.FlightUnauthenticatedError):
        assign(server, "l", 1)
    assert rows_of(assign(server, "l", 1, options=options)) == list(range(10))


READ = """
import sys, pyarrow.flight as flight
client = flight.FlightClient(sys.argv[1])
print(len(client.do_get(flight.Ticket(b"t.x.parquet")).read_all()))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
def test_a_socket_is_its_users_alone(serve, tmp_path):
    """Two learners under uids of their own: each reads by its socket, and by no other."""
    sockets = Path(f"/tmp/umbel-sockets-{os.getpid()}")
    server = serve("--learner-sockets", str(sockets))
    put(server.client(), "t.x.parquet", table())
    mine, theirs = (assign(server, name, 2, uid=uid) for name, uid in (("a", 64001), ("b", 64002)))

    def read(assignment: dict, uid: int) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", READ, assignment["location"]], user=uid, group=uid,
            extra_groups=[], capture_output=True, text=True, timeout=60, check=False, cwd="/",
            env={"PYTHONPATH": str(Path(pa.__file__).parents[1])},
        )  # fmt: skip

    assert read(mine, 64001).stdout == "5\n", read(mine, 64001).stderr
    assert read(theirs, 64002).stdout == "5\n"
    assert read(theirs, 64001).returncode != 0
    for name in ("a", "b"):
        release(server, name)
    assert server.stop() == 0
    sockets.rmdir()
