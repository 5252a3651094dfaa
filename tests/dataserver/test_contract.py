"""What FLOps' clients do with their data server, done with ours."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as pq
import pytest

from tests.dataserver.server import act, get, names, put, run, table
from tests.harness.servers import REPO

HUGGINGFACE = {b"huggingface": b'{"info": {"features": {"image": {"_type": "Image"}}}}'}
DIGEST = hashlib.md5(b"rows").hexdigest()


def test_put_list_info_get_drop(server):
    client = server.client()
    name = f"mnist.{DIGEST}.parquet"
    put(client, name, table(1000), max_chunksize=100)
    assert names(client, "mnist") == [name]

    (info,) = client.list_flights(json.dumps({"data_tags": ["mnist"]}).encode())
    assert info.total_records == 1000
    assert info.total_bytes == (server.data / name).stat().st_size
    assert info.schema.names == ["row", "text"]
    assert info.endpoints[0].ticket.ticket == name.encode()

    same = client.get_flight_info(flight.FlightDescriptor.for_path(name))
    assert (same.total_records, same.schema) == (info.total_records, info.schema)
    assert client.get_schema(info.descriptor).schema == info.schema
    assert get(client, name) == table(1000)

    assert "drop_dataset" in [action.type for action in client.list_actions()]
    assert act(client, "drop_dataset", name) is None
    assert names(client, "mnist") == [] and server.files() == []
    with pytest.raises(KeyError, match="there is no file 'mnist"):
        act(client, "drop_dataset", name)


def test_the_learners_sequence(server, tmp_path):
    """list_flights by its tags, do_get of each ticket, concatenated, with the schema's metadata."""
    client = server.client()
    for part in range(3):
        put(client, f"mnist.p{part}.parquet", table(10, part * 10, HUGGINGFACE))
    put(client, "other.p0.parquet", table(5, 1000))
    criteria = json.dumps({"data_tags": ["mnist", "absent"]}).encode()
    tables = [
        client.do_get(info.endpoints[0].ticket).read_all()
        for info in client.list_flights(criteria=criteria)
    ]
    whole = pa.concat_tables(tables)
    assert whole["row"].to_pylist() == list(range(30))
    assert whole.schema.metadata == HUGGINGFACE


@pytest.mark.parametrize("types", ["nested", "dictionary", "plain"])
def test_types_and_metadata_survive(server, types):
    made = {
        "nested": pa.table({
            "image": pa.array([{"bytes": b"\x89PNG", "path": None}, None],
                              pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "list": pa.array([[1, 2], []], pa.list_(pa.int16())),
        }),
        "dictionary": pa.table({"d": pa.array(["a", "b", "a"]).dictionary_encode()}),
        "plain": pa.table({
            "f": pa.array([1.5, None], pa.float32()), "t": pa.array([0, 1], pa.timestamp("us", "UTC")),
            "b": pa.array([True, None]), "n": pa.array([None, None], pa.int8()),
        }),
    }[types].replace_schema_metadata(HUGGINGFACE)  # fmt: skip
    client = server.client()
    put(client, "t.x.parquet", made)
    back = get(client, "t.x.parquet")
    assert back == made
    assert back.schema.metadata == HUGGINGFACE
    assert pq.read_table(server.data / "t.x.parquet") == made


def test_an_empty_table_is_a_file_too(server):
    client = server.client()
    put(client, "t.x.parquet", table(0))
    assert get(client, "t.x.parquet").num_rows == 0


def test_the_same_name_is_overwritten(server):
    client = server.client()
    put(client, "t.x.parquet", table(10))
    put(client, "t.x.parquet", table(3))
    assert get(client, "t.x.parquet") == table(3)
    assert server.files() == ["t.x.parquet"]


def test_tags_may_have_dots(server):
    client = server.client()
    dotted, plain = f"site.a.{DIGEST}.parquet", f"site.{DIGEST}.parquet"
    for name in (dotted, plain, "other.by.hand.parquet"):
        put(client, name, table())
    assert names(client, "site.a") == [dotted]
    assert names(client, "site") == [plain]
    assert names(client, "other") == ["other.by.hand.parquet"]


@pytest.mark.parametrize(
    ("criteria", "says"),
    [
        (b"", "JSON object"),
        (b"{}", "list of data tags"),
        (b'{"data_tags": []}', "name at least one data tag"),
        (b'{"data_tags": [""]}', "empty tag"),
        (b'{"data_tags": "mnist"}', "list of data tags"),
        (b"\xff\x00", "JSON object"),
        (b'{"data_tags": ' + b"[" * 50_000, "JSON object"),
    ],
)
def test_criteria_are_mandatory(server, criteria, says):
    with pytest.raises(pa.ArrowInvalid, match=says):
        list(server.client().list_flights(criteria))


def test_what_is_not_there_is_said(server):
    client = server.client()
    with pytest.raises(KeyError, match="there is no file 'none.parquet'"):
        get(client, "none.parquet")
    with pytest.raises(KeyError, match="there is no file 'none.parquet'"):
        client.get_flight_info(flight.FlightDescriptor.for_path("none.parquet"))
    with pytest.raises(pa.ArrowInvalid, match="PATH of one part"):
        client.get_flight_info(flight.FlightDescriptor.for_command(b"x"))
    with pytest.raises(NotImplementedError, match="no such action"):
        act(client, "format_disk")


EARLIER = """
import json, sys
import pyarrow as pa, pyarrow.flight as flight
client = flight.FlightClient(sys.argv[1])
data = pa.table({"row": list(range(100))}).replace_schema_metadata({"huggingface": "{}"})
writer, _ = client.do_put(flight.FlightDescriptor.for_path("old.x.parquet"), data.schema)
writer.write_table(data, max_chunksize=7)
writer.close()
criteria = json.dumps({"data_tags": ["old", "new"]}).encode()
tables = {
    info.descriptor.path[0].decode(): client.do_get(info.endpoints[0].ticket).read_all()
    for info in client.list_flights(criteria=criteria)
}
assert tables["old.x.parquet"] == data and tables["new.x.parquet"].num_rows == 10, tables
assert tables["old.x.parquet"].schema.metadata == {b"huggingface": b"{}"}
list(client.do_action(flight.Action("drop_dataset", b"old.x.parquet")))
print(pa.__version__)
"""


def test_an_earlier_client(server):
    python = REPO / ".venv-earlier/bin/python"
    if not python.exists():
        pytest.skip("scripts/bootstrap earlier has not been run")
    put(server.client(), "new.x.parquet", table())
    done = subprocess.run(
        [python, "-c", EARLIER, server.location], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() != pa.__version__
    assert server.files() == ["new.x.parquet"]


def test_put_list_and_drop_by_command(server, tmp_path):
    parquet, csv = tmp_path / "x.parquet", tmp_path / "x.csv"
    pq.write_table(table(20, metadata=HUGGINGFACE), parquet)
    csv.write_text("a,b\n1,x\n2,y\n")
    to = ("--to", server.location)
    for path in (parquet, csv, parquet):
        done = run("put", str(path), "--tag", path.suffix[1:], *to, home=tmp_path)
        assert done.returncode == 0, done.stderr
    name = f"parquet.{hashlib.md5(parquet.read_bytes()).hexdigest()}.parquet"
    listed = run("list", "--from", server.location, "--json", home=tmp_path)
    assert {f["name"].split(".")[0]: f["rows"] for f in json.loads(listed.stdout)} == {
        "csv": 2,
        "parquet": 20,
    }
    assert get(server.client(), name).schema.metadata == HUGGINGFACE
    shown = run("list", "--from", server.location, "--tag", "parquet", home=tmp_path).stdout
    assert name in shown and "csv." not in shown
    assert run("drop", name, "--from", server.location, home=tmp_path).returncode == 0
    gone = run("drop", name, "--from", server.location, home=tmp_path)
    assert gone.returncode == 1 and "there is no file" in gone.stderr
    assert len(gone.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["put", "none.parquet", "--tag", "t"], "none.parquet"),
        (["put", "x.txt", "--tag", "t"], "neither a .parquet nor a .csv"),
        (["put", "bad.parquet", "--tag", "t"], "cannot read"),
        (["put", "x.csv", "--tag", "../t"], "begins with '.'"),
        (["put", "x.csv", "--tag", "a,b"], "','"),
    ],
)
def test_bad_files_and_tags_are_one_sentence(server, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("a\n1\n")
    (tmp_path / "x.txt").write_text("a\n1\n")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no PAR1")
    done = run(*words, "--to", server.location, home=tmp_path)
    assert done.returncode == 2 and says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert server.files() == []


def test_nobody_at_the_location_is_said(tmp_path, binary):
    done = run("list", "--from", "grpc://127.0.0.1:1", home=tmp_path)
    assert done.returncode == 1 and "grpc://127.0.0.1:1" in done.stderr
    done = run("list", "--from", "127.0.0.1:11027", home=tmp_path)
    assert done.returncode == 2 and "grpc://HOST:PORT" in done.stderr
