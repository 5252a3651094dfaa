"""User code of a learner reaches nobody: neither tracking, nor aggregator, nor manager, nor data servers."""

from __future__ import annotations

import subprocess

from tests.ops.conftest import sla
from tests.ops.test_base_case import check_result

# Appended to the model manager: each fit tries everybody, and prints what became of it.
SPY = '''

import socket as _socket

_fit = ModelManager.fit_model


def _spy(self):
    for port in PORTS:
        try:
            _socket.create_connection(("127.0.0.1", port), 2).close()
            print(f"spy: port {port} is reached", flush=True)
        except OSError as error:
            print(f"spy: port {port} is away: {error}", flush=True)
    try:
        with open("/proc/net/route") as routes:
            print(f"spy: {len(routes.readlines()) - 1} routes", flush=True)
    except OSError as error:
        print(f"spy: no routes: {error}", flush=True)
    return _fit(self)


ModelManager.fit_model = _spy
'''


def test_user_code_reaches_nobody(up, repository):
    ports = [up.port] + [
        int(up.flags[name])
        for name in ("tracking-port", "aggregator-port", "flops-port", "oakestra-port", "data-port")
    ]
    file = repository / "model_manager.py"
    file.write_text(file.read_text() + SPY.replace("PORTS", repr(ports)))
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "commit", "--quiet", "-am", "a spy"], check=True)
    mock = {"dataset_name": "digits", "number_of_partitions": 2, "data_tag": "other"}
    document = {"customerID": "Admin", "mock_data_configuration": mock}
    assert up.request("POST", "mocks", json=document).status_code == 201
    name = up.submit(sla(repository))
    check_result(up, up.wait_for(name, {"done", "failed", "cancelled"}))
    for number in (0, 1):
        learner = next(
            each["name"]
            for each in up.get("services?all=1")["services"]
            if each["name"].startswith("flearner")
        )
        told = up.cli("logs", f"{learner}.{number}").stdout
        assert "spy: 0 routes" in told, told[-2000:]
        for port in ports:
            assert f"spy: port {port} is away" in told, told[-2000:]
        assert "is reached" not in told
