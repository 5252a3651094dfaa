"""Writes the seed corpora of the fuzz targets: fuzz/corpus/<target>/<name>.

Usage: .venv/bin/python fuzz/make_corpus.py

Samples come from Flower's own classes where those make them (objects, trees, requests, a FAB),
and are made by hand where no honest program would (ZIPs with traversal, bombs and lies). Run it
again after the wire has grown; every byte is the same each time. Files that the fuzzer found are
added by hand, as found-*, and are left alone.
"""

import base64
import hashlib
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from flwr.cli.build import build_fab_from_files
from flwr.app import Error, Message
from flwr.app.metadata import Metadata
from flwr.common import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from flwr.proto import (
    control_pb2,
    fab_pb2,
    fleet_pb2,
    message_pb2,
    node_pb2,
    recorddict_pb2,
    run_pb2,
    runtime_pb2,
    transport_pb2,
)
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

CORPUS = Path(__file__).parent / "corpus"
VECTORS = Path(__file__).parent.parent / "tests" / "keys"
TOY = Path(__file__).parent.parent / "tests" / "apps" / "toy"

# Keys and signatures of the timestamp below, made once by flwr 1.41 (they are random).
SIGNED = "2027-01-15T08:00:00.298173+00:00"

PROJECT = """[project]
name = "toy"
version = "1.0.0"
dependencies = ["flwr>=1.41.0"]
[tool.flwr.app]
publisher = "umbel"
[tool.flwr.app.components]
serverapp = "toy:app"
clientapp = "toy:app"
[tool.flwr.app.config]
rounds = 3
lr = 0.1
nested.text = 'x'
"""


def put(target: str, name: str, content: bytes | str) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


# -- objects ------------------------------------------------------------------------------------


def content() -> RecordDict:
    """What a train message carries, small."""
    arrays = ArrayRecord(
        {
            "w": Array(np.array([[1, 2], [3, 4]], dtype=np.float32)),
            "é": Array(np.zeros((), dtype=np.int64)),
        }
    )
    config = ConfigRecord({"lr": 0.1, "server-round": 1, "b": True, "s": "x", "by": b"\0\1"})
    metrics = MetricRecord({"num-examples": 10, "loss": 0.5, "l": [1, 2, -3], "big": 2**63})
    return RecordDict({"arrays": arrays, "config": config, "metrics": metrics})


def objects() -> None:
    record = content()
    for object_id, item in get_all_nested_objects(record).items():
        put("object_head", f"{type(item).__name__}-{object_id[:8]}", item.deflate())
    put("object_head", "no-end", b"Message " + b"a" * 64 + b"," + b"b" * 64)
    put("object_head", "long-head", b"Message " + b",".join([b"c" * 64] * 70))
    put("object_head", "unknown-type", b"RecordSet  2\0{}")
    put("object_head", "length-lie", b"ArrayChunk  9999999999999999999\0abc")
    put("object_head", "leading-zero", b"ArrayChunk  03\0abc")

    tree = get_object_tree(record)
    put("object_tree", "train", tree.SerializeToString())
    put("object_tree", "leaf", message_pb2.ObjectTree(object_id="a" * 64).SerializeToString())
    deep = message_pb2.ObjectTree(object_id=f"{0:064x}")
    for i in range(1, 18):
        deep = message_pb2.ObjectTree(object_id=f"{i:064x}", children=[deep])
        if i in (15, 16, 17):
            put("object_tree", f"depth-{i + 1}", deep.SerializeToString())
    one = message_pb2.ObjectTree(object_id="b" * 64)
    put(
        "object_tree",
        "root-inside-itself",
        message_pb2.ObjectTree(object_id="b" * 64, children=[one]).SerializeToString(),
    )
    put("object_tree", "no-id", b"\x12\x00")
    leaf = one.SerializeToString()
    put("object_tree", "unknown-fields", b"\x18\x96\x01\x3b\x43\x08\x01\x44\x3c" + leaf)
    put("object_tree", "group-without-end", leaf + b"\x3b\x43\x08\x01")
    put("object_tree", "length-lie", leaf + b"\x12\xff\xff\xff\xff\x0f")


def npy() -> None:
    arrays = {
        "f4": np.ones((2, 2), dtype=np.float32),
        "scalar": np.array(3, dtype=np.int64),
        "fortran": np.asfortranarray(np.ones((2, 3), dtype=np.float64)),
        "bool": np.array([True]),
        "text": np.array(["ab"]),
        "structured": np.zeros(1, dtype=[("a", "<f4")]),
    }
    for name, array in arrays.items():
        for version in ((1, 0), (2, 0)) if name == "f4" else ((1, 0),):
            out = io.BytesIO()
            np.lib.format.write_array(out, array, version=version, allow_pickle=False)
            put("npy_head", f"{name}-v{version[0]}", out.getvalue()[:256])

    def head(text: str) -> bytes:
        return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()

    def with_dict(descr: str, shape: str) -> bytes:
        return head(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n")

    put("npy_head", "object", with_dict("'|O'", "(1,)"))
    put("npy_head", "overflow", with_dict("'<f8'", "(4294967296, 4294967296)"))
    put("npy_head", "zero-times-huge", with_dict("'<f8'", "(0, 9223372036854775807)"))
    put("npy_head", "dimensions", with_dict("'<f8'", "(" + "1, " * 65 + ")"))
    put("npy_head", "length-lie", b"\x93NUMPY\2\0\xff\xff\xff\xff{")
    put("npy_head", "pickle", b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00K\x01.")


def safetensors() -> None:
    def file(head: dict[str, Any] | str, data: int) -> bytes:
        text = (head if isinstance(head, str) else json.dumps(head)).encode()
        return struct.pack("<Q", len(text)) + text + bytes(data)

    def array(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    two = {"w": array("F32", [2, 2], 0, 16), "é": array("I64", [], 16, 24)}
    put("safetensors", "two", file(two, 24))
    put("safetensors", "metadata", file({"__metadata__": {"format": "np"}, **two}, 24))
    put("safetensors", "nothing", file({}, 0))
    put("safetensors", "empty-array", file({"w": array("BOOL", [0, 7], 0, 0)}, 0))
    put("safetensors", "overlap", file({**two, "x": array("U8", [8], 8, 16)}, 24))
    put("safetensors", "gap", file({"w": array("U8", [1], 1, 2)}, 2))
    put("safetensors", "twice", file('{"w":{},"w":{}}', 0))
    put("safetensors", "huge", file({"w": array("F64", [2**32, 2**32], 0, 0)}, 0))
    put("safetensors", "deep", file('{"w":' + "[" * 2000, 0))
    put("safetensors", "length-lie", b"\xff" * 8 + b"{}")


def frames() -> None:
    def frame(message: bytes) -> bytes:
        return struct.pack(">I", len(message)) + message

    log = control_pb2.StreamLogsResponse(log_output="hello\n", latest_timestamp=1.5)
    stream = frame(log.SerializeToString()) * 3
    put("frames", "logs-byte-by-byte", b"\0" + stream)
    put("frames", "logs-at-once", b"\xff" + stream)
    put("frames", "empty-message", b"\0" + frame(b"") + frame(b"x"))
    put("frames", "cut", b"\2" + stream[:-3])
    put("frames", "too-long", b"\0" + frame(b"x") + b"\xff\xff\xff\xff")


# -- FABs ---------------------------------------------------------------------------------------


def raw_zip(entries: list[dict]) -> bytes:
    """A ZIP writer that lies when told to."""
    out, directory = b"", b""
    for e in entries:
        name, data, method = e["name"].encode(), e["data"], e.get("method", 0)
        packed = data
        if method == 8:
            deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed = deflate.compress(data) + deflate.flush()
        size = e.get("size", len(data))
        middle = struct.pack(
            "<HHIIII",
            e.get("flags", 0),
            method,
            0x59410000,
            e.get("crc", zlib.crc32(data)),
            len(packed),
            size,
        )
        local = e.get("local", e["name"]).encode()
        offset = e.get("offset", len(out))
        out += b"PK\3\4" + struct.pack("<H", 20) + middle
        out += struct.pack("<HH", len(local), 0) + local + packed
        directory += b"PK\1\2" + struct.pack("<HH", 0x314, 20) + middle
        mode = e.get("mode", 0o100600)
        directory += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, mode << 16, offset) + name
    end = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), len(out), 0)
    return out + directory + b"PK\5\6" + end


def fabs() -> None:
    fab, _ = build_fab_from_files(
        {
            "pyproject.toml": (PROJECT + "\n").encode(),
            "toy/__init__.py": b"",
            "toy/app.py": b"app = 1\n",
        }
    )
    put("fab_zip", "built-by-flwr", fab)
    with_deflate = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(fab)) as source, zipfile.ZipFile(with_deflate, "w") as target:
        for info in source.infolist():
            target.writestr(
                zipfile.ZipInfo(info.filename, info.date_time),
                source.read(info),
                zipfile.ZIP_DEFLATED,
            )
    put("fab_zip", "deflated", with_deflate.getvalue())

    project = {"name": "pyproject.toml", "data": PROJECT.encode()}

    def listed(text: str) -> dict:
        return {"name": ".info/CONTENT", "data": text.encode()}

    sha = hashlib.sha256(PROJECT.encode()).hexdigest()
    samples = {
        "plain": [project],
        "content": [project, listed(f"pyproject.toml,{sha},{len(PROJECT) * 8}")],
        "content-wrong": [project, listed(f"pyproject.toml,{'0' * 64},8")],
        "content-missing-file": [project, listed(f"x.py,{sha},8")],
        "content-broken": [project, listed("pyproject.toml")],
        "traversal": [project, {"name": "../../evil.py", "data": b"x"}],
        "traversal-inside": [project, {"name": "toy/../../evil.py", "data": b"x"}],
        "traversal-backslash": [project, {"name": "..\\evil.py", "data": b"x"}],
        "absolute": [project, {"name": "/etc/cron.d/x", "data": b"x"}],
        "drive": [project, {"name": "C:/x", "data": b"x"}],
        "nul": [project, {"name": "a\0/../../b", "data": b"x"}],
        "symlink": [project, {"name": "link", "data": b"/etc/passwd", "mode": 0o120777}],
        "device": [project, {"name": "null", "data": b"", "mode": 0o020666}],
        "double": [project, project],
        "local-name-differs": [project, {"name": "a.py", "data": b"x", "local": "b.py"}],
        "local-overlaps": [project, {"name": "b.toml", "data": PROJECT.encode(), "offset": 0}],
        "encrypted": [project, {"name": "a.py", "data": b"x", "flags": 1}],
        "crc": [{**project, "crc": 1}],
        "size-lie-small": [{**project, "method": 8, "size": 3}],
        "size-lie-large": [{**project, "method": 8, "size": 1 << 20}],
        "bomb-declared": [project, {"name": "bomb", "data": b"x", "method": 8, "size": 1 << 29}],
        "bomb-project": [{"name": "pyproject.toml", "data": b" " * (3 << 20), "method": 8}],
        "bomb-content": [
            project,
            {"name": "zeros", "data": bytes(4 << 20), "method": 8},
            listed(f"zeros,{hashlib.sha256(bytes(4 << 20)).hexdigest()},{8 << 22}"),
        ],
        "folder": [project, {"name": "toy/", "data": b"", "mode": 0o040755}],
        "empty": [],
    }
    for name, entries in samples.items():
        put("fab_zip", name, raw_zip(entries))
    good = raw_zip([project])
    put("fab_zip", "cut", good[:-1])
    put("fab_zip", "prefixed", b"#!/bin/sh\n" + good)
    put("fab_zip", "comment", good[:-2] + b"\x04\x00PK\5\6")
    put("fab_zip", "two-archives", raw_zip([listed("x")]) + good)

    put("fab_config", "small", PROJECT)
    put("fab_config", "toy", (TOY / "pyproject.toml").read_bytes())
    toml = {
        "header-without-key": "[=]\n",
        "header-in-array": "x = [\n[1],\n]\n[[ ",
        "quotes": "a = \"\"\"x\"\"\"\"\"\nb = '''y'''''\nc = \"\\\"\" # \"\n'd' = ''\n",
        "dates": "a = 2026-11-22T02:06:59.298173+00:00\nb = 07:32:00\nc = 1979-05-27\n",
        "numbers": "a = 0xFF\nb = -1_000.5e-3\nc = inf\nd = nan\ne = 9223372036854775807\n",
        "tables": "[a.b]\nc = {d = [1, {e = 2}], f.g = 3}\n[[h]]\n[[h]]\n[h.i]\n",
        "depth-dots": "a" + ".a" * 40 + " = 1\n",
        "depth-brackets": "a = " + "[" * 40 + "\n",
        "depth-tables": "a = " + "{ a = " * 40 + "\n",
        "depth-hidden": 'a = ["""x"""", ' + "[" * 40 + "\n",
        "unicode": '"\u00e9" = "\\u00e9 \\U0001F600"\n',
        "unclosed": 'a = """x\n',
    }
    for name, text in toml.items():
        put("fab_config", name, text)


# -- authentication -----------------------------------------------------------------------------


def auth() -> None:
    peers = {
        "p256": (
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEKlgkxf91KA0aqNBkFaHcet0coMXF\n"
            "Pvf8ImuWxofPowF2PuVNHvElGxL/fbSzDOc07Hk4DFz3GZto3hPDii+YDw==\n",
            "3044022017eae87e809163d560770d7f9445f0aa5c25054628a6fba3d4c9654eae53e9610220430c0eabe5"
            "e9dd968c8e6d4abc112352056c64a043a92042bed31730ded7844f",
        ),
        "p384": (
            "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEvU0ZRa1LiYDmxKdYiif9+IPKRhVB32TC\n"
            "BSMZOYLtL9WuigRRBIIh/2/I82cR42NBfk2HRO1NCMmXTn62PnYayudjr8mEdUqH\n"
            "7gHWkk4qT54rqYxLq0l823PNA6ePVQ5K\n",
            "306502300cd782588b5f2fdbeb5d7f522225c2b797f171f8130e9bbbe589373e56c944a362cef9c8150ba7"
            "ce212d0ec5f8ce645e023100c796cf4ddcde76bc7db98e4dc6d390b50d458cb460799b2809a3b6b3166ae3"
            "b235657aeea8307a724071c0a6b8ecd159",
        ),
        "secp256k1": (
            "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEo2A1V8WqinA+Cc+JNakKCpD5OS+jUasF\n"
            "i+VqyZ4G3YXYkuMIXMjkqBOjH4puoe0P9+X68ncDt4auOYfyoGM2JA==\n",
            "3006020101020101",
        ),
        "compressed": (
            "MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgADKlgkxf91KA0aqNBkFaHcet0coMXFPvf8ImuWxofPowE=\n",
            "3006020101020101",
        ),
    }
    for name, (body, signature) in peers.items():
        pem = f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"
        encoded = base64.b64encode(pem.encode()).decode()
        signed = base64.b64encode(bytes.fromhex(signature)).decode()
        put("node_auth", f"{name}-headers", f"{encoded}\n{SIGNED}\n{signed}")
        plain = pem.replace("\n", "|").encode() + f"\n{SIGNED}\n".encode()
        put("node_auth", f"{name}-pem", plain + bytes.fromhex(signature))
    put("node_auth", "not-base64", "A===\n2027\nAA-_")
    put("node_auth", "old", f"AAAA\n{SIGNED.replace('2027', '2026')}\nAAAA")

    method = "/flwr.proto.Runtime/AcquireTask"
    nonce = "00112233445566778899aabbccddeeff"
    body = runtime_pb2.AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
    tail = "\n" + body.SerializeToString().decode()
    put("superexec_auth", "fresh", f"{method}\n1800000000\n{nonce}\n{'0' * 64}{tail}")
    put("superexec_auth", "old", f"{method}\n1799999695\n{nonce}\n{'0' * 64}{tail}")
    put("superexec_auth", "ahead", f"{method}\n1800000004\nn\n\n")
    put("superexec_auth", "no-number", f"{method}\n+1800000000\n{nonce}\n\n")
    put("superexec_auth", "zeros", f"{method}\n001800000000\n{nonce}\n\n")

    times = [
        SIGNED,
        "2027-01-15T08:00:00+00:00",
        "2027-01-15 08:00:00.000001-23:59",
        "2024-02-29T23:59:59Z",
        "2023-02-29T00:00:00Z",
        "0000-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999999-23:59",
        "1969-12-31T23:59:59.999999+00:00",
        "2027-01-15T08:00:60+00:00",
        "2027-01-15T08:00:00",
    ]
    for i, text in enumerate(times):
        put("iso_time", f"time-{i}", text)


# -- requests -----------------------------------------------------------------------------------


def requests() -> None:
    metadata = message_pb2.Metadata(
        run_id=7, src_node_id=1, dst_node_id=2, ttl=10.0, message_type="train", created_at=1.5e9
    )
    message = message_pb2.Message(metadata=metadata, content=recorddict_pb2.RecordDict())
    tree = get_object_tree(content())
    node = node_pb2.Node(node_id=2)
    scalar = transport_pb2.Scalar
    fab = fab_pb2.Fab(hash_str="a" * 64, content=b"PK\5\6" + bytes(18))
    samples = {
        "register": fleet_pb2.RegisterNodeFleetRequest(public_key=b"-----BEGIN"),
        "push": fleet_pb2.PushMessagesRequest(
            node=node, messages_list=[message], message_object_trees=[tree]
        ),
        "start-run": control_pb2.StartRunRequest(
            fab=fab,
            override_config={
                "a": scalar(sint64=-3),
                "b": scalar(double=0.5),
                "c": scalar(bool=True),
                "d": scalar(string="x"),
            },
        ),
        "acquire-task": runtime_pb2.AcquireTaskRequest(supported_task_types=["flwr-serverapp"]),
    }
    for name, sample in samples.items():
        put("requests", name, sample.SerializeToString(deterministic=True))
    put("requests", "deep-trees", deep_tree(120))
    put("requests", "bad-utf8", b"\x1a\x02\xff\xfe")


def deep_tree(depth: int) -> bytes:
    """A push request whose tree is deeper than libprotobuf reads."""
    wire = b""
    for _ in range(depth):
        size, length = len(wire), b""
        while size >= 0x80:
            length += bytes([0x80 | size & 0x7F])
            size >>= 7
        wire = b"\x12" + length + bytes([size]) + wire
    return b"\x1a" + bytes([0x80 | len(wire) & 0x7F, len(wire) >> 7]) + wire


# -- http_response ------------------------------------------------------------------------------


def http_response() -> None:
    """The first byte says in which pieces the rest arrives; its top bit, that HEAD was asked."""
    ok = b"HTTP/1.1 200 OK\r\n"
    chunked = ok + b"Transfer-Encoding: chunked\r\n\r\n"
    wait = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nA: b\r\n\r\n"
    samples = {
        "length": ok + b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
        "chunked": chunked
        + b"3\r\nabc\r\n1000;x=y\r\n"
        + b"d" * 4096
        + b"\r\n0\r\nA: b\r\n\r\n",
        "chunk-lie": chunked + b"2\r\nabc\r\n0\r\n\r\n",
        "chunk-huge": chunked + b"ffffffffffffffff\r\nabc",
        "to-end": b"HTTP/1.0 200 OK\r\n\r\nall of it",
        "to-end-long": ok + b"\r\n" + b"x" * 9000,
        "interim": wait * 3
        + b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: x\r\nConnection: close\r\n\r\n",
        "no-content": b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n",
        "two-lengths": ok + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "length-beside-chunks": chunked[:-2] + b"Content-Length: 1\r\n\r\n0\r\n\r\n",
        "length-huge": ok + b"Content-Length: 18446744073709551616\r\n\r\n",
        "folded": ok + b"A: b\r\n c\r\n\r\n",
        "tls-alert": b"\x15\x03\x01\x00\x02\x02\x46",
    }
    for name, sample in samples.items():
        put("http_response", name, b"\x06" + sample)
    put("http_response", "head", b"\x8f" + samples["length"][:-5])


# -- records ------------------------------------------------------------------------------------


def numbered(objects: dict[str, bytes], flags: int = 0) -> bytes:
    """The objects as the target reads them, with their numbers in place of their ids."""
    out = b""
    for whole in objects.values():
        for number, object_id in enumerate(objects):
            whole = whole.replace(object_id.encode(), f"{number:064x}".encode())
        out += struct.pack("<H", flags | len(whole)) + whole
    return out


def records() -> None:
    metadata = Metadata(
        run_id=7,
        message_id="",
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="",
        created_at=1.5e9,
        ttl=10.0,
        message_type="train",
    )
    message = Message(metadata=metadata, content=content())
    objects = {i: item.deflate() for i, item in get_all_nested_objects(message).items()}
    put("records", "train", numbered(objects))
    put("records", "train-in-file", numbered(objects, 0x8000))
    put("records", "train-halved", numbered(objects, 0x4000))
    put("records", "empty", numbered(one_record(b"RecordDict  2\0{}")))
    put("records", "error", numbered({"": Message(metadata=metadata, error=Error(2, "boom")).deflate()}))
    first = b"0" * 64
    bodies = {
        "no-json": b"RecordDict  1\0{",
        "deep-json": b'ArrayRecord  104\0{"a":' + b"[" * 99,
        "number-for-id": b'RecordDict  8\0{"a": 1}',
        "key-twice": b"ConfigRecord  22\0" + b"\x0a\x09\x0a\x01k\x12\x04\x10\x02\x10\x02" * 2,
        "itself": b'RecordDict %s 73\0{"a": "%s"}' % (first, first),
    }
    for name, whole in bodies.items():
        put("records", name, numbered(one_record(whole)))
    for chunks in ("[1]", "[0, 0, 0]", "[-1]", "[0.5]", "[[0]]"):
        body = b'{"dtype": "x", "shape": [], "stype": "y", "arraychunk_ids": %s}' % chunks.encode()
        array = b"Array %s %d\0%s" % (b"c" * 64, len(body), body)
        record = b'ArrayRecord %s 73\0{"w": "%s"}' % (b"a" * 64, b"a" * 64)
        name = f"chunks-{chunks.strip('[]').replace(', ', '-')}"
        put(
            "records",
            name,
            numbered({"c" * 64: b"ArrayChunk  3\0abc", "a" * 64: array} | one_record(record)),
        )
    put("records", "state", recorddict_to_proto(content()).SerializeToString())


def one_record(whole: bytes) -> dict[str, bytes]:
    """A message whose content is one record."""
    one, two = "1" * 64, "2" * 64
    body = b'{"r": "%s"}' % one.encode()
    return {
        one: whole,
        two: b"RecordDict %s %d\0%s" % (one.encode(), len(body), body),
        "3" * 64: b"Message %s 0\0" % two.encode(),
    }


# -- worker frames ------------------------------------------------------------------------------


def value(held: Any) -> bytes:
    """docs/worker-protocol.md."""

    def sized(kind: bytes, raw: bytes) -> bytes:
        return kind + struct.pack("<I", len(raw)) + raw

    if held is None:
        return b"n"
    if isinstance(held, bool):
        return b"t" if held else b"f"
    if isinstance(held, int):
        return struct.pack("<cq", b"i", held) if held < 2**63 else struct.pack("<cQ", b"u", held)
    if isinstance(held, float):
        return struct.pack("<cd", b"d", held)
    if isinstance(held, (str, bytes)):
        return sized(b"s", held.encode()) if isinstance(held, str) else sized(b"b", held)
    head = (b"m" if isinstance(held, dict) else b"l") + struct.pack("<I", len(held))
    if isinstance(held, dict):
        return head + b"".join(sized(b"", k.encode()) + value(v) for k, v in held.items())
    return head + b"".join(value(item) for item in held)


def worker_frames() -> None:
    rows = [
        ["arrays", "a", [["w", "float32", [2, 2], "numpy.ndarray", [[0, 100], [100, 44]]]]],
        ["metrics", "m", [["n", 3], ["u", 2**63], ["l", [1, 2**63]], ["d", [0.5]], ["e", []]]],
        ["config", "c", [["b", True], ["t", "x"], ["y", b"\xff"], ["l", ["a"]], ["e", []]]],
    ]
    state = [["s", "c", [["seen", 1]]]]
    after = {"state": state, "runtime": 0.25, "out_end": 144}
    head = {
        "type": "train",
        "group_id": "",
        "ttl": 5.0,
        "created_at": 1.5e9,
        "reply_to": "a" * 64,
        "src": 2**64 - 1,
        "dst": 1,
    }
    reply = {"op": "reply", "head": head, "content": rows} | after
    samples: dict[str, Any] = {
        "ready": {"op": "ready", "protocol": 1, "pid": 7, "python": "3.11.2", "flwr": "1.41.0"},
        "unfit": {"op": "unfit", "reason": "no flwr"},
        "loaded": {"op": "loaded", "fork": False, "why": "jax"},
        "load-failed": {"op": "load_failed", "code": 1, "reason": "r", "traceback": "t"},
        "forked": {"op": "forked", "id": 1, "pid": 8},
        "exited": {"op": "exited", "id": 1, "pid": 8, "status": 9},
        "reply": reply,
        "error": {"op": "error", "code": 2, "reason": "boom"} | after,
        "nothing": {"op": "nothing"} | after,
        "piece-beyond": reply | {"out_end": 143},
        "same-key": reply | {"content": rows + rows},
        "mixed-list": reply | {"state": [["s", "c", [["l", [1, "x"]]]]]},
    }
    for name, sample in samples.items():
        put("worker_frame", name, value(sample))
    put("worker_frame", "count-lie", b"l\xff\xff\xff\xffn")
    put("worker_frame", "length-lie", b"s\xff\xff\xff\x0fx")
    put("worker_frame", "deep", b"l\x01\0\0\0" * 20 + b"n")
    put("worker_frame", "small-u", struct.pack("<cQ", b"u", 5))
    put("worker_frame", "not-utf8", b"s\x02\0\0\0\xc3(")


# -- keys and configurations of nodes -----------------------------------------------------------


def keys() -> None:
    """The vectors of tests/keys, and the insides of OpenSSH keys."""
    for key in json.loads((VECTORS / "node_keys.json").read_text()):
        for form, text in key["forms"].items():
            put("node_key", f"{key['curve']}-{form}", text)
        lines = key["forms"]["OpenSSH"].splitlines()
        put("node_key", f"{key['curve']}-inside", base64.b64decode("".join(lines[1:-1])))
    put("node_key", "public", key["public"])
    trust = json.loads((VECTORS / "fab_trust.json").read_text())
    for number, file in enumerate(trust["files"]):
        put("trusted_entities", f"file-{number:02}", file["text"])
    for case in trust["cases"]:
        if text := case["verifications"].get("fpk_alice"):
            put("verification", case["name"].replace(" ", "-"), text)
    for number, case in enumerate(
        json.loads((VECTORS / "node_config.json").read_text())["cases"]
    ):
        if not case["text"].endswith(".toml"):
            put("node_config", f"text-{number:02}", case["text"])


def run_configs() -> None:
    run = runtime_run()
    put("run_config", "plain", run.SerializeToString(deterministic=True))
    run.override_config["lr"].double = 0.5
    run.override_config["rounds"].uint64 = 2**64 - 1
    run.override_config["nested.text"].string = "é"
    put("run_config", "all", run.SerializeToString(deterministic=True))
    run.override_config["lr"].bytes = b"x"
    put("run_config", "bytes", run.SerializeToString(deterministic=True))
    run.override_config["unknown"].bool = True
    put("run_config", "unknown", run.SerializeToString(deterministic=True))


def runtime_run() -> run_pb2.Run:
    return run_pb2.Run(run_id=1, fab_id="umbel/toy", fab_version="1.0.0", fab_hash="a" * 64)


# -- checkpoints of sums ------------------------------------------------------------------------

F4 = 3 << 8 | 4
LOW = 34 << 8  # a block's head: its lowest limb counts 1
ONES = 2**64 - 1


def checkpoint(arrays: list[list[int]], weight: int, updates: int, version: int = 1) -> bytes:
    """As PartialAggregate::Serialize writes it; a weight of 1 is in word 17 of 35."""
    total = [0] * 35
    total[17] = weight
    words = [int.from_bytes(b"MBELSUM", "little") << 8 | version, updates, *total, len(arrays)]
    for array in arrays:
        words += array
    state = 0x243F6A8885A308D3
    for word in words:
        state = (state ^ word) * 0x9E3779B97F4A7C15 & ONES
        state ^= state >> 32
    return struct.pack(f"<{len(words) + 1}Q", *words, state)


def checkpoints() -> None:
    one = [F4, 1, LOW | 1, 5]
    small = checkpoint([one, [F4, 3, LOW | 2, 1, 2, 3, 0, 7, ONES], [F4, 0]], 2, 2)
    put("partial_aggregate", "small", small)
    put("partial_aggregate", "nothing", checkpoint([], 0, 0))
    put("partial_aggregate", "zeros", checkpoint([[F4, 600, 0, 0, 0]], 1, 1))
    put("partial_aggregate", "two-blocks", checkpoint([[F4, 257, LOW | 1, *range(256), 0]], 1, 1))
    put("partial_aggregate", "complex", checkpoint([[4 << 8 | 8, 1, LOW | 1, 3, ONES]], 1, 1))
    put("partial_aggregate", "most-limbs", checkpoint([[F4, 1, 70, *range(1, 71)]], 1, 1))
    put("partial_aggregate", "too-many-limbs", checkpoint([[F4, 1, 71, *range(1, 72)]], 1, 1))
    put("partial_aggregate", "place-lie", checkpoint([[F4, 1, 70 << 8 | 1, 1]], 1, 1))
    put("partial_aggregate", "limb-below", checkpoint([[F4, 1, LOW | 2, 0, 1]], 1, 1))
    put("partial_aggregate", "limb-above", checkpoint([[F4, 1, LOW | 2, 1, 0]], 1, 1))
    put("partial_aggregate", "size-zero", checkpoint([[F4, 1, LOW, 1]], 1, 1))
    put("partial_aggregate", "type", checkpoint([[3 << 8 | 16, 1, LOW | 1, 1]], 1, 1))
    put("partial_aggregate", "count-lie", checkpoint([[F4, 2**63, LOW | 1, 1]], 1, 1))
    put("partial_aggregate", "count-within", checkpoint([[F4, 90_000]] * 200, 1, 1))
    put("partial_aggregate", "version", checkpoint([one], 1, 1, version=2))
    put("partial_aggregate", "cut", small[:-20])
    put("partial_aggregate", "checksum", small[:-1] + b"x")


def strategies() -> None:
    def model(trees: int, parallel: int) -> dict[str, Any]:
        params = {"num_parallel_tree": str(parallel), "num_trees": str(trees)}
        booster = {
            "gbtree_model_param": params,
            "iteration_indptr": list(range(0, trees + 1, parallel)),
            "tree_info": [0] * trees,
            "trees": [{"base_weights": [0.5, -1e-7], "id": i} for i in range(trees)],
        }
        return {"learner": {"gradient_booster": {"model": booster}}, "version": [2, 1, 1]}

    put("xgb_model", "two", json.dumps(model(2, 1)))
    put("xgb_model", "forest", json.dumps(model(4, 2)))
    put("xgb_model", "none", json.dumps(model(0, 1)))
    few = model(1, 1)
    few["learner"]["gradient_booster"]["model"]["gbtree_model_param"]["num_parallel_tree"] = "9"
    put("xgb_model", "too-few", json.dumps(few))
    put("xgb_model", "no-learner", "{}")
    put("xgb_model", "deep", "[" * 1000)
    put("xgb_model", "cut", json.dumps(model(2, 1))[:-5])

    def exact(sign: int, first: int, *digits: int) -> bytes:
        head = bytes([1, sign, first, len(digits)])
        return head + b"".join(digit.to_bytes(4, "little") for digit in digits)

    put("exact_sum", "zero", exact(0, 0))
    put("exact_sum", "one", exact(0, 68, 1))
    put("exact_sum", "negative", exact(1, 60, 2**32 - 1, 0, 2**32 - 1))
    put("exact_sum", "largest", exact(0, 0, *[2**32 - 1] * 140))
    put("exact_sum", "too-large", exact(0, 139, 1, 1))
    put("exact_sum", "zero-on-top", exact(0, 1, 1, 0))


# -- mlflow_answer ------------------------------------------------------------------------------


def mlflow_answers() -> None:
    """The first byte is (status - 200) / 2."""
    run = {
        "info": {"run_id": "0f", "experiment_id": "1", "run_name": "FLOps FL round 1",
                 "status": "FINISHED", "start_time": 1800000000000, "end_time": "1800000000001",
                 "lifecycle_stage": "active"},
        "data": {
            "metrics": [{"key": "loss", "value": 0.5, "timestamp": 1800000000000, "step": "1"},
                        {"key": "nan", "value": "NaN", "timestamp": 1, "step": 0},
                        {"key": "up", "value": "-Infinity"}],
            "params": [{"key": "a", "value": "b"}, {"key": "empty"}],
            "tags": [{"key": "umbel.run", "value": "p/1"}],
        },
    }  # fmt: skip
    experiment = {"experiment_id": "1", "name": "FLOps Project", "lifecycle_stage": "deleted"}
    model = {"name": "m", "aliases": [{"alias": "best", "version": "3"}]}
    version = {"name": "m", "version": "3", "run_id": "0f", "source": "models:/m-1",
               "status": "READY", "creation_timestamp": 1800000000000}  # fmt: skip
    refused = {"error_code": "INVALID_PARAMETER_VALUE", "message": "two\nlines \x1b[2J"}
    answers = {
        "run": (200, {"run": run}),
        "runs": (200, {"runs": [run, run], "next_page_token": "x"}),
        "experiment": (200, {"experiment": experiment}),
        "metrics": (200, {"metrics": run["data"]["metrics"]}),
        "models": (200, {"registered_models": [model, {"name": "n"}]}),
        "version": (200, {"model_version": version}),
        "versions": (200, {"model_versions": [version]}),
        "empty": (200, {}),
        "refused": (400, refused),
        "not-there": (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}),
        "broken": (500, {"error_code": "INTERNAL_ERROR", "message": "x" * 1000}),
        "odd-error": (400, {"error_code": 7, "message": []}),
        "odd-run": (200, {"run": {"info": [], "data": 7}}),
        "odd-numbers": (200, {"metrics": [{"key": "a", "value": "1", "timestamp": 2**64 - 1}]}),
        "odd-times": (200, {"metrics": [{"key": "a", "value": 1, "timestamp": -(2**63)}]}),
    }
    for name, (status, answer) in answers.items():
        put("mlflow_answer", name, bytes([(status - 200) // 2]) + json.dumps(answer).encode())
    for name, text in {"deep": b"[" * 5000, "page": b"<h1>\xff", "cut": b'{"run": {"info'}.items():
        put("mlflow_answer", name, bytes([0]) + text)


def data() -> None:
    put("data_request", "criteria", json.dumps({"data_tags": ["mnist", "a.b"]}))
    put("data_request", "no-tags", json.dumps({"data_tags": []}))
    claim = {"project": "p", "learner": "l", "tags": ["t"], "of": 3, "index": 2, "uid": 1000}
    put("data_request", "claim", json.dumps(claim))
    put("data_request", "claim-index", json.dumps(claim | {"index": 3}))
    put("data_request", "claim-of", json.dumps(claim | {"of": 2**64 - 1}))
    put("data_request", "release", json.dumps({"learner": "l"}))
    put("data_request", "deep", '{"data_tags": ' + "[" * 2000)
    put("data_request", "name", f"site.a.{'0123456789abcdef' * 2}.parquet")
    put("data_request", "escape", "../../etc/passwd")

    def idx(rank: int, sizes: list[int], values: bytes) -> bytes:
        head = (0x0800 + rank).to_bytes(4, "big")
        return head + b"".join(size.to_bytes(4, "big") for size in sizes) + values

    put("data_images", "images", idx(3, [2, 2, 3], bytes(12)))
    put("data_images", "labels", idx(1, [3], b"\0\1\2"))
    put("data_images", "too-many", idx(3, [2**32 - 1] * 3, b"x"))
    put("data_images", "too-few", idx(3, [2, 2, 3], bytes(11)))
    put("data_images", "digits", "\n".join(",".join(["16"] * 64 + [str(i)]) for i in range(3)))
    put("data_images", "digits-17", ",".join(["17"] * 64 + ["1"]))


def main() -> None:
    for old in CORPUS.glob("*/*"):
        if not old.name.startswith("found-"):
            old.unlink()
    makers = (objects, npy, frames, fabs, auth, requests, http_response, records, worker_frames)
    makers += (keys, run_configs, checkpoints, strategies, safetensors, mlflow_answers, data)
    for make in makers:
        make()
    for folder in sorted(CORPUS.iterdir()):
        files = list(folder.iterdir())
        print(f"{folder.name}: {len(files)} files, {sum(f.stat().st_size for f in files)} bytes")


if __name__ == "__main__":
    main()
