"""Our SuperNode against either SuperLink, with each way to host ClientApps: the same final bits.

Every day one federation for each SuperLink, in which each node hosts in another way; with
UMBEL_SOAK=1 each pairing by itself, of the toy and of the Fashion-MNIST example.
"""

from __future__ import annotations

import itertools
import secrets
import subprocess
import sys

import numpy as np
import pytest

from tests.harness.federation import (
    STOCK,
    TOY,
    Child,
    Federation,
    NodeKind,
    toy_expected,
    toy_model,
    umbel_node,
)
from tests.harness.servers import REPO, child_env, make_certs, start_server, venv_program

ROUNDS = 3
SERVERS = ("umbel", "upstream")
OURS = tuple(umbel_node(host) for host in ("worker", "resident", "stock"))
FASHION = REPO / "examples" / "fashion-mnist"
SHARES = ({"data-from": 0.0, "data-to": 0.7}, {"data-from": 0.7, "data-to": 1.0})
pytestmark = pytest.mark.usefixtures("umbel_bin")


def check_toy(federation: Federation) -> None:
    """Three rounds come to the calculated model, each site having done each piece of work once."""
    output, count = federation.output(), len(federation.nodes)
    config = {"num-server-rounds": ROUNDS, "min-nodes": count, **output.config}
    run_id = federation.start(config)
    federation.wait_status(run_id, "finished:completed", 180)
    assert output.digest() == output.report()["sha256"] == toy_expected(ROUNDS, count)
    for what in ("train", "evaluate"):
        done = [(note["site"], note["round"]) for note in output.notes(f"{what} ends")]
        assert sorted(done) == list(itertools.product(range(count), range(1, ROUNDS + 1)))
        # The context's state came back each time: the last round is each site's third.
        metrics = output.report()[what][str(ROUNDS)]
        assert metrics["trained" if what == "train" else "evaluated"] == ROUNDS
    federation.wait_gone(federation.serverapps(), 15)
    for node in federation.nodes:
        if node.kind.program == "umbel":
            status = node.status()
            (site,) = status["sites"]
            assert (site["instructions"], site["replies"]) == (2 * ROUNDS, 2 * ROUNDS)
            assert site["connected"] and not site["working_on"] and not site["error_replies"]
            assert site["node_id"] in federation.online()
            assert status["host"] == node.kind.host and node.spools() == []


@pytest.mark.parametrize("server_kind", SERVERS)
def test_all_hosts_in_one_federation(server_kind, folder):
    kinds = list(OURS)
    with start_server(server_kind, home=folder / f"{server_kind}-server") as server:
        with Federation(server, folder / server_kind, nodes=len(kinds), node=kinds) as federation:
            check_toy(federation)


@pytest.mark.soak
@pytest.mark.parametrize("kind", OURS, ids=str)
@pytest.mark.parametrize("server_kind", SERVERS)
def test_each_pairing(server_kind, kind, folder):
    name = f"{server_kind}-{kind.host}"
    with start_server(server_kind, home=folder / f"{name}-server") as server:
        with Federation(server, folder / name, node=kind) as federation:
            check_toy(federation)


@pytest.mark.parametrize("tls", [False, True], ids=["insecure", "tls"])
def test_isolation_process(tls, folder):
    """An external, unmodified SuperExec with the right secret launches the ClientApps."""
    name = "process-tls" if tls else "process"
    secret = folder / f"{name}-secret"
    secret.write_bytes(secrets.token_bytes(32))
    flags = ["--isolation", "process", "--superexec-auth-secret-file", secret]
    trust = ["--insecure"]
    if tls:  # of the node's own Runtime API
        certs = make_certs(folder / f"{name}-certs")
        flags += ["--ssl-certfile", certs.cert, "--ssl-keyfile", certs.key]
        flags += ["--ssl-ca-certfile", certs.ca]
        trust = ["--root-certificates", certs.ca]
    with start_server("umbel", home=folder / f"{name}-server") as server:
        options = {"nodes": 1, "node": umbel_node("worker", *flags)}
        with Federation(server, folder / name, **options) as federation:
            (node,) = federation.nodes
            command = [venv_program("flower-superexec"), "--runtime-api-address", node.address]
            command += [*trust, "--superexec-auth-secret-file", secret]
            home = federation.folder / "superexec"
            home.mkdir()
            superexec = Child("superexec", command, child_env(home), home / "superexec.log")
            try:
                output = federation.output()
                config = {"num-server-rounds": 1, "min-nodes": 1, **output.config}
                run_id = federation.start(config)
                federation.wait_status(run_id, "finished:completed", 90)
                assert output.digest() == toy_expected(1, 1)
                assert superexec.running, superexec.log_text()
            finally:
                superexec.end()


def fashion_digest(federation: Federation) -> str:
    """The Fashion-MNIST example's final model, as a hash."""
    out = federation.folder / "out"
    out.mkdir()
    config = {"num-server-rounds": ROUNDS, "output-dir": str(out)}
    run_id = federation.start(config, federation.build(FASHION))
    federation.wait_status(run_id, "finished:completed", 600)
    federation.wait_gone(federation.serverapps(), 15)
    with np.load(out / "model.npz") as arrays:
        return toy_model.digest({name: arrays[name] for name in arrays.files})


@pytest.mark.soak
def test_fashion_mnist_has_the_same_bits_in_every_pairing(folder):
    found = {}
    for server_kind, kind in itertools.product(SERVERS, (STOCK, *OURS)):
        name = f"fashion-{server_kind}-{str(kind).replace('/', '-')}"
        with start_server(server_kind, home=folder / f"{name}-server") as server:
            options = {"node_configs": SHARES, "node": kind}
            with Federation(server, folder / name, **options) as federation:
                found[server_kind, str(kind)] = fashion_digest(federation)
    assert len(set(found.values())) == 1, found


def test_a_python_that_lacks_flower_is_named(folder):
    """Found at the start, not with the first message."""
    bare = folder / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    with start_server("umbel", home=folder / "bare-server") as server:
        python = bare / "bin" / "python"
        kind: NodeKind = umbel_node("worker", "--python", python)
        options = {"nodes": 1, "node": kind, "start_nodes": False}
        with Federation(server, folder / "bare-federation", **options) as federation:
            child = federation.nodes[0].start()
            assert child.wait(30) != 0
            assert f"{python}" in child.log_text() and "flwr" in child.log_text()
