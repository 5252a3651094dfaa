"""Row 2 of the SuperNode: TLS, node keys and rules about apps; what a person reads who is refused."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.harness.federation import TOY, Federation, Node, toy_expected, umbel_node
from tests.harness.hub import Hub
from tests.harness.servers import make_certs, start_server, wait_until

SIGNER = "fpk_0123456789abcdef0123456789abcdef"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBFvRVmQDbJ4sfgY9a0LbOVYuPnrYAePmpIEFZUzVB1T"
REFUSED_KEY = "the SuperLink does not take this SuperNode's key"
pytestmark = pytest.mark.usefixtures("umbel_bin")


@pytest.fixture(scope="module")
def federation(kind, folder):
    """Two registered nodes over TLS."""
    tls = make_certs(folder / "certs")
    with start_server(kind, tls=tls, node_auth=True, home=folder / "server") as server:
        options = {"keys": True, "node": umbel_node()}
        with Federation(server, folder / "federation", **options) as federation:
            yield federation
            federation.wait_gone(federation.serverapps(), 15)


@pytest.fixture
def stranger(federation, folder):
    """A node beside the federation's, not started."""
    index = 10 + len(list(folder.glob("federation/node-*")))
    node = Node(federation, index, {"site": 0, "examples": 1}, umbel_node())
    yield node
    if node.running:
        node.child.end()
    assert node.leftovers() == []


def test_registered_keys_work(federation):
    assert federation.online() == {node.node_id for node in federation.nodes}
    output = federation.output()
    run_id = federation.start({"num-server-rounds": 1, **output.config})
    federation.wait_status(run_id, "finished:completed", 90)
    assert output.digest() == toy_expected(1)


def test_a_key_in_pem_form_works(federation, stranger):
    private = ec.generate_private_key(ec.SECP256R1())
    stranger.key = stranger.home / "key.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    form = serialization.PrivateFormat.TraditionalOpenSSL
    stranger.key.write_bytes(private.private_bytes(encoding, form, plain))
    public = private.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    stranger.key.with_suffix(".pub").write_bytes(public)
    node_id = stranger.register()
    stranger.start()
    federation.wait_online(3)
    assert node_id in federation.online()
    stranger.stop()
    assert stranger.child.proc.returncode == 0, stranger.child.log_text()
    federation.wait_online(2)


def ended(node: Node, *flags: object) -> tuple[int, str]:
    """Start a node that is to end by itself; its exit status and what it said."""
    child = node.start(*flags)
    return child.wait(60), child.log_text()


def test_an_unregistered_key_is_refused(stranger):
    stranger.make_key()
    status, text = ended(stranger)
    assert status == 1 and REFUSED_KEY in text and "is it registered" in text


def test_no_key_is_refused(stranger):
    status, text = ended(stranger)
    assert status == 1
    assert "takes only registered SuperNodes" in text and "flwr supernode register" in text


@pytest.mark.soak
def test_upstream_refuses_the_key_of_a_node_that_is_online(folder):
    """(Ours takes it for the same node that was killed, and lets it in.)"""
    tls = make_certs(folder / "upstream-certs")
    home = folder / "upstream-server"
    with start_server("upstream", tls=tls, node_auth=True, home=home) as server:
        options = {"nodes": 1, "keys": True, "node": umbel_node()}
        with Federation(server, folder / "upstream", **options) as federation:
            stranger = Node(federation, 10, {}, umbel_node())
            stranger.key = federation.nodes[0].key
            status, text = ended(stranger)
            assert status == 1 and REFUSED_KEY in text and "no other SuperNode" in text
            assert federation.online() == {federation.nodes[0].node_id}


def test_a_forged_key_is_refused(federation, stranger):
    """Somebody's private part beside a registered node's public part."""
    theirs, registered = ec.generate_private_key(ec.SECP384R1()), federation.nodes[0].key
    loaded = serialization.load_ssh_private_key(registered.read_bytes(), None)
    encoding, form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    points = [key.public_key().public_bytes(encoding, form) for key in (theirs, loaded)]
    der = theirs.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    assert points[0] in der
    stranger.key = stranger.home / "forged"
    stranger.key.write_bytes(_pem(der.replace(*points)))
    status, text = ended(stranger)
    assert status == 2 and "its public part is not that of its private part" in text


def _pem(der: bytes) -> bytes:
    lines = base64.encodebytes(der).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{lines}-----END EC PRIVATE KEY-----\n".encode()


def test_a_public_key_is_no_private_key(stranger):
    stranger.key = stranger.make_key()
    status, text = ended(stranger)
    assert status == 2 and "is a public key; the private one beside it is needed" in text


def test_a_key_without_tls_is_refused(stranger):
    stranger.make_key()
    status, text = ended(stranger, "--insecure")
    assert status == 2 and "--insecure" in text and "TLS" in text


def test_a_certificate_of_another_authority_is_refused(federation, stranger, folder):
    stranger.make_key()
    other = make_certs(folder / "other-certs")
    status, text = ended(stranger, "--root-certificates", other.ca, "--max-retries", 0)
    assert status == 1 and "certificate" in text


def test_an_expired_certificate_is_refused(kind, folder):
    tls = make_certs(folder / "expired-certs", expired=True)
    with start_server(kind, tls=tls, home=folder / "expired-server") as server:
        options = {"nodes": 1, "node": umbel_node(), "start_nodes": False}
        with Federation(server, folder / "expired", **options) as federation:
            status, text = ended(federation.nodes[0], "--max-retries", 0)
            assert status == 1 and "expired" in text


def test_a_killed_node_comes_back_as_itself(federation):
    node = federation.nodes[0]
    node.kill9()
    node.start()
    wait_until(
        "it is connected again",
        lambda: node.running and "SuperNode is connected" in node.child.log_text(),
        30,
    )
    assert federation.online() == {node.node_id for node in federation.nodes}


def test_a_node_that_is_unregistered_ends(federation):
    """Last of those with keys: it takes a node away."""
    node = federation.nodes[1]
    federation.flwr_json("supernode", "unregister", node.node_id, "test")
    assert node.child.wait(60) == 1
    assert "register it again with `flwr supernode register`" in node.child.log_text()


# ---- which apps may run --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def replies(kind, folder):
    """What one message to each of these nodes came to, by the node's name."""
    trusted = folder / "trusted.yaml"
    trusted.write_text(f'{SIGNER}: "{PUBLIC}"\n')
    with start_server(kind, home=folder / "rules-server") as server:
        builder = Federation(server, folder / "builder", nodes=1, start_nodes=False)
        digest = hashlib.sha256(builder.build(TOY)).hexdigest()
        rules = {
            "trusted entities": ("--trusted-entities", trusted),
            "this fab": ("--allow-fab", "0" * 64, "--allow-fab", digest),
            "another fab": ("--allow-fab", "0" * 64),
            "this publisher": ("--allow-publisher", "someone", "--allow-publisher", "umbel"),
            "another publisher": ("--allow-publisher", "someone"),
        }
        kinds = [umbel_node("worker", *flags) for flags in rules.values()]
        options = {"nodes": len(kinds), "node": kinds}
        with Federation(server, folder / "rules", **options) as federation:
            output = federation.output()
            config = {"mode": "probe", "num-server-rounds": 1, "min-nodes": len(kinds)}
            run_id = federation.start({**config, **output.config}, builder.build(TOY))
            federation.wait_state(run_id, "finished:completed", 90)
            ids = [node.status()["sites"][0]["node_id"] for node in federation.nodes]
            (only,) = output.report()["rounds"]
            found = {reply["src"]: reply for reply in only["replies"]}
            trained = {note["site"] for note in output.notes("train begins")}
            yield {
                name: {**found[node_id], "ran": site in trained, "digest": digest}
                for site, (name, node_id) in enumerate(zip(rules, ids))
            }
            federation.wait_gone(federation.serverapps(), 15)


@pytest.mark.parametrize("name", ["this fab", "this publisher"])
def test_an_app_that_is_allowed_runs(replies, name):
    assert "code" not in replies[name] and replies[name]["ran"]


@pytest.mark.parametrize(
    "name, rule, what",
    [
        ("trusted entities", "--trusted-entities", "no verification"),
        ("another fab", "--allow-fab", "does not name this hash"),
        ("another publisher", "--allow-publisher", "does not name 'umbel'"),
    ],
)
def test_an_app_that_is_not_allowed_does_not_run(replies, name, rule, what):
    reply = replies[name]
    assert reply["code"] == 7 and not reply["ran"]
    assert rule in reply["reason"] and what in reply["reason"], reply["reason"]
    assert reply["digest"][:8] in reply["reason"]


def test_an_app_that_a_trusted_reviewer_has_signed_runs(folder):
    """One node trusts the reviewer, the other somebody else."""
    reviewer, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    kinds = []
    for name, key in (("reviewer", reviewer), ("other", other)):
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        trusted = folder / f"{name}.yaml"
        trusted.write_text(f'{SIGNER}: "{public.decode()}"\n')
        kinds.append(umbel_node("worker", "--trusted-entities", trusted))
    with start_server("umbel", home=folder / "hub-server") as server:
        with Hub(server.address, {SIGNER: reviewer}) as hub:
            options = {"nodes": 2, "node": kinds, "superlink": hub.address}
            with Federation(server, folder / "hub", **options) as federation:
                output = federation.output()
                run_id = federation.start({"mode": "probe", "num-server-rounds": 1, **output.config})
                federation.wait_state(run_id, "finished:completed", 90)
                (only,) = output.report()["rounds"]
                ids = [node.status()["sites"][0]["node_id"] for node in federation.nodes]
                replies = {reply["src"]: reply for reply in only["replies"]}
                good, bad = (replies[node_id] for node_id in ids)
                assert "code" not in good
                assert bad["code"] == 7 and "--trusted-entities" in bad["reason"], bad
                assert {note["site"] for note in output.notes("train begins")} == {0}
                federation.wait_gone(federation.serverapps(), 15)
