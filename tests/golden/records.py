"""Writes tests/golden/records.json: messages as Flower's own classes name and serialize them.

Usage: .venv/bin/python tests/golden/records.py

src/flower/records_golden_test.cc makes each message from its description and compares. Doubles
stand as the hexadecimal of their 8 bytes, integers as text, so that none is changed by JSON.
An array's data is its NPY header, then `zeros` zero bytes or `count` counted ones (uint32 0, 1, …).
"""

import hashlib
import json
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.common.serde import recorddict_to_proto
from flwr.proto.recorddict_pb2 import ConfigRecord as ProtoConfig
from flwr.proto.recorddict_pb2 import MetricRecord as ProtoMetric
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_body,
    get_object_tree,
)

MIB = 1 << 20
NAN = struct.unpack("<d", bytes.fromhex("010000000000f87f"))[0]


def array(values: np.ndarray) -> Array:
    return Array(np.ascontiguousarray(values) if values.ndim else values)


def counted(size: int) -> Array:
    """`size` bytes of data that differ in every chunk."""
    return array(np.arange(size // 4, dtype=np.uint32))


def contents() -> dict[str, RecordDict]:
    small = array(np.array([[1, 2], [3, 4]], dtype=np.float32))
    every_kind = ConfigRecord(
        {
            "lr": 0.1,
            "server-round": 1,
            "negative": -(2**63),
            "big": 2**64 - 1,
            "on": True,
            "off": False,
            "s": "x",
            "empty text": "",
            "by": b"\0\1\xff",
            "no bytes": b"",
            "bools": [True, False],
            "ints": [0, -1, 2**63 - 1],
            "uints": [0, 2**63],
            "doubles": [0.0, -0.0, NAN, float("inf"), 5e-324],
            "texts": ["a", "", "é\U0001f600"],
            "bytes": [b"", b"\xff\0"],
            "none": [],
        }
    )
    metrics = MetricRecord(
        {
            "num-examples": 10,
            "loss": NAN,
            "minus zero": -0.0,
            "zero": 0,
            "big": 2**63,
            "l": [1, 2, -3],
            "u": [2**64 - 1, 0],
            "d": [0.5, float("-inf")],
            "none": [],
        }
    )
    unicode = "é \" \\ \n\t\b\f\r \x00\x1f\x7f / \u2028 \U0001f600"
    return {
        "empty": RecordDict(),
        "train": RecordDict(
            {
                "arrays": ArrayRecord({"w": small, "é": small}),
                "config": ConfigRecord({"lr": 0.1, "server-round": 1}),
            }
        ),
        "every kind": RecordDict({"config": every_kind, "metrics": metrics}),
        "empty records": RecordDict(
            {"a": ArrayRecord(), "m": MetricRecord(), "c": ConfigRecord(), "": ConfigRecord()}
        ),
        "order is kept": RecordDict(
            {
                "z": MetricRecord({"9": 1, "10": 2, "a": 3, "": 4}),
                "a": ArrayRecord({"9": small, "10": array(np.zeros(3, dtype=np.int8))}),
            }
        ),
        "unicode": RecordDict(
            {
                unicode: ConfigRecord({unicode: unicode, "": unicode}),
                "arrays": ArrayRecord({unicode: small}),
            }
        ),
        "shapes": RecordDict(
            {
                "arrays": ArrayRecord(
                    {
                        "0-d": array(np.array(3.5)),
                        "none": array(np.zeros((0,), dtype=np.float32)),
                        "none of many": array(np.zeros((2, 0, 3), dtype=np.float16)),
                        "legacy": Array(dtype="", shape=(), stype="numpy.ndarray", data=b""),
                        "tiny": Array(dtype="x", shape=(1,), stype="own", data=b"1"),
                    }
                )
            }
        ),
        "same records": RecordDict(
            {
                "one": ArrayRecord({"w": small}),
                "two": ArrayRecord({"w": small}),
                "three": MetricRecord({"n": 1}),
                "four": MetricRecord({"n": 1}),
            }
        ),
        "large": RecordDict(
            {
                "arrays": ArrayRecord(
                    {
                        "counted": counted(6 * MIB),
                        "zeros": array(np.zeros(11 * MIB, dtype=np.uint8)),
                        "exact": Array("uint8", (1,), "own", bytes(5 * MIB)),
                        "one more": Array("uint8", (1,), "own", bytes(5 * MIB + 1)),
                    }
                ),
                "metrics": MetricRecord({"num-examples": 2**62}),
            }
        ),
        "many": RecordDict(
            {
                "arrays": ArrayRecord(
                    {f"layer.{i}": array(np.full(4, i % 50, dtype=np.int64)) for i in range(100)}
                ),
                "config": ConfigRecord({f"key {i}": i for i in range(500)}),
            }
        ),
    }


def metadata(**changes: Any) -> Metadata:
    values: dict[str, Any] = {
        "run_id": 12345678901234567890,
        "message_id": "",
        "src_node_id": 1,
        "dst_node_id": 987654321,
        "reply_to_message_id": "",
        "group_id": "1",
        "created_at": 1774000000.25,
        "ttl": 43200.0,
        "message_type": "train",
        "src_task_id": None,
        "dst_task_id": None,
    }
    return Metadata(**(values | changes))


def messages() -> dict[str, Message]:
    made = {name: Message(metadata=metadata(), content=c) for name, c in contents().items()}
    made["tasks and text"] = Message(
        metadata=metadata(
            group_id="é", message_type="query.naïve", src_task_id=2**64 - 1, dst_task_id=0
        ),
        content=RecordDict(),
    )
    made["all default"] = Message(
        metadata=metadata(
            run_id=0,
            src_node_id=0,
            dst_node_id=0,
            group_id="",
            created_at=0.0,
            ttl=0.0,
            message_type="train",
        ),
        content=RecordDict(),
    )
    reply = metadata(
        run_id=7,
        src_node_id=2,
        dst_node_id=1,
        reply_to_message_id="a" * 64,
        group_id="",
        created_at=1774000000.5,
        ttl=10.0,
    )
    made["error"] = Message(metadata=reply, error=Error(code=2, reason="boom"))
    made["error without a word"] = Message(metadata=reply, error=Error(code=0))
    made["negative error"] = Message(metadata=reply, error=Error(code=-1, reason="ü"))
    return made


def described(value: Any, kind: str) -> Any:
    if isinstance(value, list) or hasattr(value, "vals"):
        single = kind.removesuffix("_list")
        items = value if isinstance(value, list) else value.vals
        return [described(item, single) for item in items]
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return struct.pack("<d", value).hex()
    return value.hex() if isinstance(value, bytes) else value


def described_array(item: Array) -> dict[str, Any]:
    out: dict[str, Any] = {"dtype": item.dtype, "shape": item.shape, "stype": item.stype}
    if len(item.data) < 4096:
        return out | {"data": item.data.hex()}
    if item.stype != "numpy.ndarray":
        return out | {"data": "", "zeros": len(item.data)}
    head = BytesIO(item.data)
    np.load(head)
    size = item.numpy().nbytes
    fill = "count" if item.dtype == "uint32" else "zeros"
    return out | {"data": item.data[: len(item.data) - size].hex(), fill: size}


def described_record(record: Any) -> dict[str, Any]:
    if isinstance(record, ArrayRecord):
        return {"arrays": [[key, described_array(item)] for key, item in record.items()]}
    proto = ProtoMetric() if isinstance(record, MetricRecord) else ProtoConfig()
    proto.ParseFromString(get_object_body(record.deflate(), type(record)))
    items = []
    for item in proto.items:
        kind = item.value.WhichOneof("value")
        items.append([item.key, kind, described(getattr(item.value, kind), kind)])
    return {"metrics" if isinstance(record, MetricRecord) else "config": items}


def described_message(message: Message) -> dict[str, Any]:
    meta = message.metadata
    objects = get_all_nested_objects(message)
    out: dict[str, Any] = {
        "head": {
            "run_id": str(meta.run_id),
            "src": str(meta.src_node_id),
            "dst": str(meta.dst_node_id),
            "reply_to": meta.reply_to_message_id,
            "group_id": meta.group_id,
            "type": meta.message_type,
            "ttl": described(meta.ttl, "double"),
            "created_at": described(meta.created_at, "double"),
            "src_task_id": None if meta.src_task_id is None else str(meta.src_task_id),
            "dst_task_id": None if meta.dst_task_id is None else str(meta.dst_task_id),
        },
        "id": message.object_id,
        "objects": len(objects),
        "tree_sha256": hashlib.sha256(get_object_tree(message).SerializeToString()).hexdigest(),
    }
    if message.has_error():
        reason = message.error.reason or ""
        return out | {"error": {"code": message.error.code, "reason": reason}}
    state = recorddict_to_proto(message.content).SerializeToString()
    return out | {
        "content": [[name, described_record(r)] for name, r in message.content.items()],
        "content_id": message.content.object_id,
        "record_ids": [record.object_id for record in message.content.values()],
        "state_sha256": hashlib.sha256(state).hexdigest(),
    }


def main() -> None:
    made = {name: described_message(message) for name, message in messages().items()}
    path = Path(__file__).with_suffix(".json")
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(made[name])}" for name in made)
    path.write_text("{\n" + lines + "\n}\n")
    print(f"{path.name}: {len(made)} messages")


if __name__ == "__main__":
    main()
