"""What goes over the wire: routes, signatures, objects, bundles.

Only the message classes come from the installed Flower wheel. Objects, hashes, signatures and
bundles are built here from their description, so that a mistake in one program's helper cannot
hide the same mistake in the other's.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import io
import json
import os
import time
import zipfile
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from flwr.proto import (
    control_pb2,
    error_pb2,
    fab_pb2,
    fleet_pb2,
    heartbeat_pb2,
    log_pb2,
    message_pb2,
    node_pb2,
    recorddict_pb2,
    run_pb2,
    runtime_pb2,
)

PROTOBUF = "application/protobuf"
STREAM = "application/flower-protobuf-stream"
SUPERLINK = 1  # the node id of the SuperLink itself

_F, _R, _C = "/v1/fleet/", "/v1/runtime/", "/v1/control/"


def _control(names: str) -> dict[str, tuple[type, type]]:
    """Control routes are named like their messages: list-runs, ListRunsRequest, …Response."""
    table = {}
    for name in names.split():
        stem = "".join(part.capitalize() for part in name.split("-")).replace("Oauth", "OAuth")
        table[_C + name] = (
            getattr(control_pb2, stem + "Request"),
            getattr(control_pb2, stem + "Response"),
        )
    return table


ROUTES: dict[str, tuple[type, type]] = {
    _F
    + "register-node": (
        fleet_pb2.RegisterNodeFleetRequest,
        fleet_pb2.RegisterNodeFleetResponse,
    ),
    _F + "activate-node": (fleet_pb2.ActivateNodeRequest, fleet_pb2.ActivateNodeResponse),
    _F + "deactivate-node": (fleet_pb2.DeactivateNodeRequest, fleet_pb2.DeactivateNodeResponse),
    _F
    + "unregister-node": (
        fleet_pb2.UnregisterNodeFleetRequest,
        fleet_pb2.UnregisterNodeFleetResponse,
    ),
    _F
    + "send-node-heartbeat": (
        heartbeat_pb2.SendNodeHeartbeatRequest,
        heartbeat_pb2.SendNodeHeartbeatResponse,
    ),
    _F + "pull-messages": (fleet_pb2.PullMessagesRequest, fleet_pb2.PullMessagesResponse),
    _F + "push-messages": (fleet_pb2.PushMessagesRequest, fleet_pb2.PushMessagesResponse),
    _F + "get-run": (run_pb2.GetRunRequest, run_pb2.GetRunResponse),
    _F + "get-fab": (fab_pb2.GetFabRequest, fab_pb2.GetFabResponse),
    _F + "push-object": (message_pb2.PushObjectRequest, message_pb2.PushObjectResponse),
    _F + "pull-object": (message_pb2.PullObjectRequest, message_pb2.PullObjectResponse),
    _F
    + "confirm-message-received": (
        message_pb2.ConfirmMessageReceivedRequest,
        message_pb2.ConfirmMessageReceivedResponse,
    ),
    _R + "acquire-task": (runtime_pb2.AcquireTaskRequest, runtime_pb2.AcquireTaskResponse),
    _R
    + "send-task-heartbeat": (
        runtime_pb2.SendTaskHeartbeatRequest,
        runtime_pb2.SendTaskHeartbeatResponse,
    ),
    _R + "pull-task-input": (runtime_pb2.PullTaskInputRequest, runtime_pb2.PullTaskInputResponse),
    _R
    + "push-task-output": (
        runtime_pb2.PushTaskOutputRequest,
        runtime_pb2.PushTaskOutputResponse,
    ),
    _R
    + "push-messages": (
        runtime_pb2.PushAppMessagesRequest,
        runtime_pb2.PushAppMessagesResponse,
    ),
    _R
    + "pull-messages": (
        runtime_pb2.PullAppMessagesRequest,
        runtime_pb2.PullAppMessagesResponse,
    ),
    _R + "push-object": (message_pb2.PushObjectRequest, message_pb2.PushObjectResponse),
    _R + "pull-object": (message_pb2.PullObjectRequest, message_pb2.PullObjectResponse),
    _R
    + "confirm-message-received": (
        message_pb2.ConfirmMessageReceivedRequest,
        message_pb2.ConfirmMessageReceivedResponse,
    ),
    _R + "get-nodes": (runtime_pb2.GetNodesRequest, runtime_pb2.GetNodesResponse),
    _R + "push-logs": (log_pb2.PushLogsRequest, log_pb2.PushLogsResponse),
    _R + "create-task": (runtime_pb2.CreateTaskRequest, runtime_pb2.CreateTaskResponse),
    _R
    + "start-automation": (
        control_pb2.StartAutomationRequest,
        control_pb2.StartAutomationResponse,
    ),
    _R
    + "push-task-message": (
        runtime_pb2.PushTaskMessageRequest,
        runtime_pb2.PushTaskMessageResponse,
    ),
    _R
    + "pull-task-message": (
        runtime_pb2.PullTaskMessageRequest,
        runtime_pb2.PullTaskMessageResponse,
    ),
    _R
    + "push-task-events": (
        runtime_pb2.PushTaskEventsRequest,
        runtime_pb2.PushTaskEventsResponse,
    ),
    _R
    + "get-run-series-events": (
        runtime_pb2.GetRunSeriesEventsRequest,
        runtime_pb2.GetRunSeriesEventsResponse,
    ),
    _R
    + "get-compacted-contexts": (
        runtime_pb2.GetCompactedContextsRequest,
        runtime_pb2.GetCompactedContextsResponse,
    ),
    _R
    + "put-compacted-context": (
        runtime_pb2.PutCompactedContextRequest,
        runtime_pb2.PutCompactedContextResponse,
    ),
    _R
    + "record-task-usage": (
        runtime_pb2.RecordTaskUsageRequest,
        runtime_pb2.RecordTaskUsageResponse,
    ),
    _R + "get-connector": (runtime_pb2.GetConnectorRequest, runtime_pb2.GetConnectorResponse),
    **_control(
        "start-run stop-run list-runs stream-logs stream-run-events pull-artifacts"
        " list-run-series get-run-series update-run-series-description list-run-series-events"
        " start-automation list-automations stop-automation"
        " get-login-details get-auth-tokens refresh-auth-tokens"
        " list-connectors disconnect-connector begin-connector-oauth complete-connector-oauth"
        " register-node unregister-node list-nodes"
        " list-apps list-app-associations add-app remove-app"
        " list-federations show-federation set-federation-icon create-federation"
        " archive-federation add-node-to-federation remove-node-from-federation"
        " remove-account-from-federation create-invitation list-invitations accept-invitation"
        " reject-invitation revoke-invitation configure-simulation-federation"
    ),
}
STREAMS = {_C + "stream-logs", _C + "stream-run-events"}
FLEET = [path for path in ROUTES if path.startswith(_F)]
RUNTIME = [path for path in ROUTES if path.startswith(_R)]
CONTROL = [path for path in ROUTES if path.startswith(_C)]


# ---------------------------------------------------------------------------------------------
# Node signatures


class NodeKey:
    """A SuperNode's key pair, and the three headers it signs every Fleet call with."""

    def __init__(self, curve: str = "p256"):
        if curve == "rsa":
            self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        elif curve == "ed25519":
            self._key = ed25519.Ed25519PrivateKey.generate()
        else:
            curves = {
                "p192": ec.SECP192R1,
                "p224": ec.SECP224R1,
                "p256": ec.SECP256R1,
                "p384": ec.SECP384R1,
                "p521": ec.SECP521R1,
                "k256": ec.SECP256K1,
                "b256": ec.BrainpoolP256R1,
            }
            self._key = ec.generate_private_key(curves[curve]())
        public = self._key.public_key()
        self.pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.der = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def openssh(self) -> bytes:
        return self._key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )

    def sign(self, text: str) -> bytes:
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(text.encode())
        from cryptography.hazmat.primitives.asymmetric import padding

        return self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())

    def headers(
        self,
        age: float = 0.0,
        timestamp: str | None = None,
        public: bytes | None = None,
        signature: bytes | None = None,
    ) -> list[tuple[str, str]]:
        """The headers of a call signed `age` seconds ago; the rest overrides single parts."""
        timestamp = timestamp if timestamp is not None else stamp(age)
        signature = self.sign(timestamp) if signature is None else signature
        return [
            ("flwr-public-key", base64.b64encode(public or self.pem).decode()),
            ("flwr-timestamp", timestamp),
            ("flwr-signature", base64.b64encode(signature).decode()),
        ]


def stamp(age: float = 0.0) -> str:
    """The time `age` seconds ago, as a node writes it."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return (now - datetime.timedelta(seconds=age)).isoformat()


# ---------------------------------------------------------------------------------------------
# SuperExec signatures

ACQUIRE_METHOD = "/flwr.proto.Runtime/AcquireTask"


def superexec_headers(
    secret: bytes,
    body: bytes,
    age: float = 0.0,
    nonce: str | None = None,
    method: str = ACQUIRE_METHOD,
    **override: str,
) -> list[tuple[str, str]]:
    """The four headers that prove knowledge of the shared secret for this body.

    `override` replaces a header's value after signing; keys ts, nonce, body_sha256, signature.
    """
    key = hmac.new(secret, b"superexec-auth-v1", hashlib.sha256).digest()
    ts = str(int(time.time() - age))
    nonce = nonce if nonce is not None else os.urandom(16).hex()
    digest = hashlib.sha256(body).hexdigest()
    text = f"method={method}\nts={ts}\nnonce={nonce}\nbody_sha256={digest}"
    values = {
        "ts": ts,
        "nonce": nonce,
        "body_sha256": digest,
        "signature": hmac.new(key, text.encode(), hashlib.sha256).hexdigest(),
    }
    values.update(override)
    return [(f"flwr-superexec-{name.replace('_', '-')}", text) for name, text in values.items()]


# ---------------------------------------------------------------------------------------------
# Objects


@dataclass
class Thing:
    """An object with its descendants: `id`, its bytes, and the tree announced for it."""

    kind: str
    body: bytes
    children: list[Thing] = field(default_factory=list)

    @property
    def content(self) -> bytes:
        ids = ",".join(dict.fromkeys(child.id for child in self.children))
        return f"{self.kind} {ids} {len(self.body)}".encode() + b"\0" + self.body

    @property
    def id(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def tree(self):
        unique = {child.id: child for child in self.children}
        return message_pb2.ObjectTree(
            object_id=self.id, children=[child.tree for child in unique.values()]
        )

    def all(self) -> dict[str, bytes]:
        """Every object by id, children before parents."""
        found: dict[str, bytes] = {}
        for child in self.children:
            found.update(child.all())
        found[self.id] = self.content
        return found


def array(values: bytes, shape: list[int]) -> Thing:
    """A float32 array in NPY format, cut into one chunk."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    npy = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + values
    chunk = Thing("ArrayChunk", npy)
    about = {"dtype": "float32", "shape": shape, "stype": "numpy.ndarray", "arraychunk_ids": [0]}
    return Thing("Array", json.dumps(about).encode(), [chunk])


def record_dict(seed: int = 0) -> Thing:
    """Two arrays and a metric; `seed` makes the content (and so every id but one) distinct."""
    first = array(bytes(range(16)), [2, 2])
    second = array(seed.to_bytes(4, "little"), [1])
    arrays = Thing(
        "ArrayRecord", json.dumps({"w": first.id, "b": second.id}).encode(), [first, second]
    )
    proto = recorddict_pb2.MetricRecord()
    item = proto.items.add(key="num-examples")
    item.value.sint64 = 10 + seed
    metrics = Thing("MetricRecord", proto.SerializeToString(deterministic=True))
    names = {"arrays": arrays.id, "metrics": metrics.id}
    return Thing("RecordDict", json.dumps(names).encode(), [arrays, metrics])


@dataclass
class Parcel:
    """A Message ready to be pushed: the envelope, its object, and the metadata used."""

    message: message_pb2.Message
    thing: Thing

    @property
    def id(self) -> str:
        return self.message.metadata.message_id

    @property
    def tree(self):
        return self.thing.tree

    def objects(self) -> dict[str, bytes]:
        return self.thing.all()


def parcel(
    run_id: int,
    src: int,
    dst: int,
    *,
    reply_to: str = "",
    group: str = "",
    ttl: float = 3600.0,
    kind: str = "train",
    created_at: float,
    records: Thing | None = None,
    error: tuple[int, str] | None = None,
) -> Parcel:
    """A Message with content (default: an empty RecordDict) or with an error."""
    metadata = message_pb2.Metadata(
        run_id=run_id,
        src_node_id=src,
        dst_node_id=dst,
        reply_to_message_id=reply_to,
        group_id=group,
        ttl=ttl,
        message_type=kind,
        created_at=created_at,
    )
    inner = message_pb2.Message(metadata=metadata)
    if error is not None:
        inner.error.CopyFrom(error_pb2.Error(code=error[0], reason=error[1]))
        thing = Thing("Message", inner.SerializeToString(deterministic=True))
    else:
        records = records or Thing("RecordDict", b"{}")
        thing = Thing("Message", inner.SerializeToString(deterministic=True), [records])
    message = message_pb2.Message(metadata=metadata)
    message.metadata.message_id = thing.id
    if error is not None:
        message.error.CopyFrom(inner.error)
    else:
        message.content.SetInParent()
    return Parcel(message, thing)


def reply_to(instruction: Parcel, *, created_at: float, ttl: float | None = None, **changes):
    """The answer of the node an instruction was sent to."""
    old = instruction.message.metadata
    values = dict(
        run_id=old.run_id,
        src=old.dst_node_id,
        dst=old.src_node_id,
        reply_to=old.message_id,
        group=old.group_id,
        ttl=old.created_at + old.ttl - created_at if ttl is None else ttl,
        kind=old.message_type,
        created_at=created_at,
    )
    values.update(changes)
    return parcel(values.pop("run_id"), values.pop("src"), values.pop("dst"), **values)


# ---------------------------------------------------------------------------------------------
# Bundles (FAB)

PYPROJECT = """\
[project]
name = "{name}"
version = "{version}"
description = ""
license = "Apache-2.0"
dependencies = ["flwr>=1.41.0"]

[tool.flwr.app]
publisher = "{publisher}"

[tool.flwr.app.components]
{components}

[tool.flwr.app.config]
num-server-rounds = 3
fraction = 0.5
name = "toy"
flag = true

[tool.flwr.app.config.nested]
deep = 1
"""
SERVER_CLIENT = 'serverapp = "toy.server:app"\nclientapp = "toy.client:app"'


def pyproject(
    name: str = "toy",
    version: str = "1.0.0",
    publisher: str = "acme",
    components: str = SERVER_CLIENT,
) -> str:
    return PYPROJECT.format(name=name, version=version, publisher=publisher, components=components)


def bundle(
    toml: str | bytes | None = None,
    files: dict[str, bytes] | None = None,
    deflate: bool = False,
    with_content: bool = True,
) -> bytes:
    """A small application bundle; `toml=b""` leaves out pyproject.toml."""
    toml = pyproject() if toml is None else toml
    toml = toml.encode() if isinstance(toml, str) else toml
    entries: dict[str, bytes] = {"pyproject.toml": toml} if toml else {}
    entries |= {
        "toy/__init__.py": b"",
        "toy/server.py": b"app = 1\n",
        "toy/client.py": b"app = 2\n",
    }
    entries |= files or {}
    if with_content:
        lines = [f"{n},{hashlib.sha256(b).hexdigest()},{len(b) * 8}" for n, b in entries.items()]
        entries[".info/CONTENT"] = "\n".join(lines).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name, (2024, 10, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
            info.external_attr = 0o600 << 16
            archive.writestr(info, data)
    return out.getvalue()


def fab(content: bytes) -> fab_pb2.Fab:
    return fab_pb2.Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content)


def node(node_id: int) -> node_pb2.Node:
    return node_pb2.Node(node_id=node_id)
