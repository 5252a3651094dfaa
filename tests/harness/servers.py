"""Start a SuperLink as a child process for a test: ours, or the stock one beside it.

    with start_server("umbel") as server:
        httpx.get(server.base_url + "/health")

Both kinds take the same arguments, so a test can be run against either. A server listens on a
free loopback port, writes its output to `log_path`, and is ready (GET /health answers 200) when
`start_server` returns. Leaving the context stops it and everything it left behind. Only
processes that were started here, or by a server started here, are ever signalled, by pid.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

REPO = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 15.0

# Every descendant of a server inherits this variable, so that a ServerApp which outlives a
# killed server is still known to be ours when the test ends.
_MARKER = "UMBEL_TEST_SERVER"


class ServerError(RuntimeError):
    """A server did not start, or died; the message carries the end of its log."""


def wait_until(what: str, condition: Callable[[], object], seconds: float, step: float = 0.02):
    """Return the first true answer of `condition`; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s: {what}")
        time.sleep(step)


def free_port() -> int:
    """A loopback TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


# ---------------------------------------------------------------------------------------------
# Certificates


@dataclass(frozen=True)
class Certs:
    """PEM files: `ca` signs `cert`, whose private key is `key`."""

    ca: Path
    cert: Path
    key: Path
    expired: bool = False


def make_certs(directory: Path | str, expired: bool = False) -> Certs:
    """Write a CA and a server certificate for localhost and 127.0.0.1 into `directory`.

    With `expired` the server's, not the CA's, has been out of date for an hour."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.timezone.utc)
    begin, end = now - datetime.timedelta(hours=2), now + datetime.timedelta(days=30)
    server_end = now - datetime.timedelta(hours=1) if expired else end

    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Umbel test CA")])
    ca_usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    ca = (
        x509.CertificateBuilder()
        .subject_name(ca_name)
        .issuer_name(ca_name)
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(ca_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)
        .sign(ca_key, hashes.SHA256())
    )

    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address(HOST)),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    cert = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .issuer_name(ca_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(server_end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
        )
        .sign(ca_key, hashes.SHA256())
    )

    certs = Certs(
        directory / "ca.crt", directory / "server.pem", directory / "server.key", expired
    )
    certs.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    certs.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    certs.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certs.key.chmod(0o600)
    return certs


# ---------------------------------------------------------------------------------------------
# Programs and their environment


def umbel_bin() -> Path:
    """The program under test: $UMBEL_BIN, or the release build of this checkout."""
    return Path(os.environ.get("UMBEL_BIN", REPO / "bin" / "umbel"))


def have_umbel() -> bool:
    return os.access(umbel_bin(), os.X_OK)


def venv_program(name: str) -> Path:
    """A program installed beside this Python, e.g. `flower-superlink` or `flwr`."""
    return Path(sys.executable).parent / name


def child_env(home: Path | str, **extra: str) -> dict[str, str]:
    """Environment for any program of a test: its own homes, no calls to the outside."""
    home = Path(home)
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    env = {name: text for name, text in os.environ.items() if name.lower() not in proxies}
    env.update(
        UMBEL_HOME=str(home),
        FLWR_HOME=str(home / "flwr"),
        FLWR_TELEMETRY_ENABLED="0",
        FLWR_DISABLE_UPDATE_CHECK="1",
        FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1",
        NO_PROXY="127.0.0.1,localhost,::1",
        PYTHONUNBUFFERED="1",
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    )
    env.update(extra)
    return env


def _command(
    kind: str,
    port: int,
    tls: Certs | None,
    node_auth: bool,
    isolation: str,
    secret_file: Path | str | None,
    database: Path | str | None,
    extra_args: Sequence[str],
) -> list[str]:
    if kind == "umbel":
        command = [str(umbel_bin()), "superlink"]
    elif kind == "upstream":
        command = [
            str(venv_program("flower-superlink")),
            "--disable-runtime-dependency-installation",
        ]
    else:
        raise ValueError(f"kind {kind!r} is neither 'umbel' nor 'upstream'")
    if tls is None:
        command += ["--insecure"]
    else:
        command += ["--ssl-certfile", str(tls.cert), "--ssl-keyfile", str(tls.key)]
        command += ["--ssl-ca-certfile", str(tls.ca)]
    command += ["--host", HOST, "--port", str(port), "--isolation", isolation]
    if node_auth:
        command += ["--enable-supernode-auth"]
    if secret_file is not None:
        command += ["--superexec-auth-secret-file", str(secret_file)]
    if database is not None:
        command += ["--database", str(database)]
    return command + [str(arg) for arg in extra_args]


# ---------------------------------------------------------------------------------------------
# The server


class Server:
    """A SuperLink that runs as a child process. Made by `start_server`."""

    def __init__(
        self,
        kind: str,
        port: int,
        tls: Certs | None,
        home: Path,
        command: list[str],
        env: dict[str, str],
    ):
        self.kind = kind
        self.port = port
        self.tls = tls
        self.home = home
        self.command = command
        self.log_path = home / f"{kind}-{port}.log"
        self.address = f"{HOST}:{port}"
        self.base_url = f"{'https' if tls else 'http'}://{self.address}"
        self.ready_seconds = 0.0
        self.proc: subprocess.Popen[bytes] | None = None
        self._mark = uuid.uuid4().hex
        self._env = {**env, _MARKER: self._mark}
        self._descendants: set[psutil.Process] = set()

    # Context manager: `with start_server(...) as server`.
    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        if self.proc is None:
            raise ServerError("the server is not running")
        return self.proc.pid

    def ssl_context(self) -> ssl.SSLContext | bool:
        """What httpx wants as `verify=`: trust in this server's CA, or nothing to verify.

        Of an expired certificate nothing: the test is of others, not of this client."""
        if self.tls is None or self.tls.expired:
            return False
        return ssl.create_default_context(cafile=str(self.tls.ca))

    def client(self, **kwargs) -> httpx.Client:
        """An HTTP client for this server that ignores proxies of the machine."""
        kwargs.setdefault("timeout", 60.0)
        return httpx.Client(
            base_url=self.base_url, verify=self.ssl_context(), trust_env=False, **kwargs
        )

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self, seconds: float = START_SECONDS) -> None:
        """Launch the program and wait until it answers GET /health with 200."""
        if self.proc is not None and self.proc.poll() is None:
            raise ServerError(f"already running as pid {self.proc.pid}")
        begin = time.monotonic()
        with open(self.log_path, "ab") as log:
            self.proc = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._env, cwd=self.home, start_new_session=True,
            )  # fmt: skip
        try:
            with self.client(timeout=2.0) as client:
                wait_until(f"{self.kind} answers /health", lambda: self._healthy(client), seconds)
        except (TimeoutError, ServerError) as error:
            self._end(signal.SIGKILL)
            raise ServerError(f"{error}\n{' '.join(self.command)}\n{self._log_tail()}") from None
        self.ready_seconds = time.monotonic() - begin

    def stop(self, seconds: float = STOP_SECONDS) -> int | None:
        """SIGTERM, then SIGKILL after `seconds`. Returns the exit status; safe to repeat."""
        if self.proc is None:
            return None
        self._note_descendants()
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(seconds)
            except subprocess.TimeoutExpired:
                self.proc.kill()
        return self.proc.wait()

    def kill9(self) -> None:
        """SIGKILL to the server alone; what it launched lives on."""
        self._note_descendants()
        self._end(signal.SIGKILL)

    def restart(self, seconds: float = START_SECONDS) -> None:
        """Start again with the same port, home and flags, after stopping it if it runs."""
        self.stop()
        self.start(seconds)

    def close(self) -> None:
        """Stop the server and whatever it launched that is still alive."""
        self.stop()
        self._note_descendants()
        alive = [p for p in self._descendants if p.is_running()]
        for step in (signal.SIGTERM, signal.SIGKILL):
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    process.send_signal(step)  # psutil refuses a pid that was reused
            _, alive = psutil.wait_procs(alive, timeout=3)
        self._descendants.clear()

    def _healthy(self, client: httpx.Client) -> bool:
        if self.proc is None or self.proc.poll() is not None:
            code = self.proc.returncode if self.proc else None
            raise ServerError(f"{self.kind} ended with status {code} before it was ready")
        try:
            return client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def _end(self, number: int) -> None:
        if self.proc is not None and self.proc.poll() is None:
            self.proc.send_signal(number)
        if self.proc is not None:
            self.proc.wait()

    def _note_descendants(self) -> None:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if self.proc is not None and process.pid == self.proc.pid:
                    continue
                if process.environ().get(_MARKER) == self._mark:
                    self._descendants.add(process)
        if self.proc is not None and self.proc.poll() is None:
            with contextlib.suppress(psutil.Error):
                self._descendants.update(psutil.Process(self.proc.pid).children(recursive=True))

    def _log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])


@contextlib.contextmanager
def start_server(
    kind: str = "umbel",
    tls: Certs | None = None,
    node_auth: bool = False,
    isolation: str = "subprocess",
    secret_file: Path | str | None = None,
    database: Path | str | None = None,
    home: Path | str | None = None,
    port: int | None = None,
    extra_args: Sequence[str] = (),
    env: dict[str, str] | None = None,
):
    """Start a SuperLink, wait until it is ready, yield it as a `Server`, stop it.

    kind        "umbel" (ours) or "upstream" (the installed flower-superlink).
    tls         from `make_certs`; None means plain HTTP with --insecure.
    home        its state folder (UMBEL_HOME, with FLWR_HOME inside); default a new temporary
                one that is removed at the end. A given one is kept.
    env         more environment variables.
    """
    own_home = home is None
    folder = Path(tempfile.mkdtemp(prefix=f"umbel-test-{kind}-") if own_home else home).absolute()
    (folder / "flwr").mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = _command(kind, port, tls, node_auth, isolation, secret_file, database, extra_args)
    server = Server(kind, port, tls, folder, command, child_env(folder, **(env or {})))
    try:
        server.start()
        yield server
    finally:
        server.close()
        if own_home:
            shutil.rmtree(folder, ignore_errors=True)
