"""Writes tests/keys/*.json: what Flower 1.41 itself makes of keys, signatures and node configs.

Usage: .venv/bin/python tests/keys/make_vectors.py

The C++ tests of src/flower hold our readers against these. Every answer comes from Flower's own
functions; what they raise or exit for counts as refused. Every byte is the same each time. A case
with "stricter" is one that Flower takes and we refuse, for the reason given.
"""

import base64
import hashlib
import importlib
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import ssh
from flwr.common.config import parse_config_args
from flwr.supercore.fab import Fab
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, uses_nist_ec_curve
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign, sign_message
from flwr.supernode.start_client_internal import _verify_fab

# The package has a function of the module's name.
cli = importlib.import_module("flwr.supernode.cli.flower_supernode")

HERE = Path(__file__).parent
TEMPORARY = tempfile.TemporaryDirectory()
NO_PASSPHRASE = serialization.NoEncryption()
SIGNED_AT = 1_800_000_000


def write(name: str, value: object) -> None:
    (HERE / name).write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n")


def answer(function, *args):  # noqa: ANN001, ANN201
    """What it returns; None if it raises or exits."""
    try:
        return function(*args)
    except (Exception, SystemExit):  # noqa: BLE001
        return None


# -- node keys ----------------------------------------------------------------------------------


def node_keys() -> None:
    """One key per curve in every form; the forms' public key is what Flower sends."""
    ssh.os = SimpleNamespace(urandom=lambda size: bytes(range(size)))  # the check number
    keys = []
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
        seed = int.from_bytes(hashlib.sha512(curve.name.encode()).digest()[:30], "big")
        key = ec.derive_private_key(seed, curve)
        assert uses_nist_ec_curve(key.public_key())
        forms = {}
        for form in ("OpenSSH", "PKCS8", "TraditionalOpenSSL"):
            pem = key.private_bytes(
                serialization.Encoding.PEM,
                getattr(serialization.PrivateFormat, form),
                NO_PASSPHRASE,
            )
            forms[form] = pem.decode()
        read = cli._try_setup_client_authentication(  # noqa: SLF001
            SimpleNamespace(
                auth_supernode_private_key=_file(forms["OpenSSH"]),
                auth_supernode_public_key=None,
            )
        )
        public = public_key_to_bytes(read[1]).decode()
        keys.append({"curve": curve.name, "public": public, "forms": forms})
    write("node_keys.json", keys)


def _file(text: str, suffix: str = "") -> str:
    """A file of the test's own folder; newlines as they are."""
    path = Path(TEMPORARY.name) / f"file{suffix}"
    path.write_bytes(text.encode())
    return str(path)


# -- trusted entities ---------------------------------------------------------------------------


def reviewer(name: str) -> tuple[ed25519.Ed25519PrivateKey, str]:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    line = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return key, line.decode()


ALICE, ALICE_LINE = reviewer("alice")
BOB, BOB_LINE = reviewer("bob")
EVE, EVE_LINE = reviewer("eve")
TRUSTED = {"fpk_alice": ALICE_LINE + " alice@example", "fpk_bob": BOB_LINE}
FAB = b"the bytes of a FAB"
OTHER_FAB = b"the bytes of another FAB"


def signed(key, fab: bytes = FAB, signed_at: int = SIGNED_AT) -> bytes:  # noqa: ANN001
    return sign_message(key, create_message_to_sign(hashlib.sha256(fab).digest(), signed_at))


def url(signature: bytes) -> str:
    """As `flwr app review` sends it."""
    return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def verification(signature: object, signed_at: object = SIGNED_AT, **more: object) -> str:
    return json.dumps({"signature": signature, "signed_at": signed_at, **more})


def verify(verifications: dict[str, str]) -> bool:
    """As _pull_and_store_message does."""
    if not verifications.get("valid_license", ""):
        return False
    fab = Fab(hashlib.sha256(FAB).hexdigest(), FAB, verifications)
    return bool(answer(_verify_fab, fab, TRUSTED))


def fab_trust() -> None:
    alice, bob = url(signed(ALICE)), url(signed(BOB))
    flipped = bytearray(signed(ALICE))
    flipped[5] ^= 1
    valid = {"valid_license": "Valid"}
    good = {"fpk_alice": verification(alice)}
    stranger = {"fpk_eve": verification(url(signed(EVE)))}
    cases = {
        "good": valid | good,
        "the other one": valid | {"fpk_bob": verification(bob)},
        "both": valid | good | {"fpk_bob": verification(bob)},
        "more fields": valid | {"fpk_alice": verification(alice, x=[1], public_key="y")},
        "beside a stranger": valid | good | stranger,
        "beside a forged one": valid | good | {"fpk_bob": verification(url(bytes(64)))},
        "padded": valid | {"fpk_alice": verification(alice + "==")},
        "half padded": valid | {"fpk_alice": verification(alice + "=")},
        "standard base64": valid
        | {"fpk_alice": verification(base64.b64encode(signed(ALICE)).decode())},
        "old": valid | {"fpk_alice": verification(url(signed(ALICE, signed_at=1)), 1)},
        "of the future": valid
        | {"fpk_alice": verification(url(signed(ALICE, signed_at=2**63)), 2**63)},
        "any license": good | {"valid_license": "x"},
        "no license": good,
        "empty license": good | {"valid_license": ""},
        "nothing": {},
        "nobody": valid,
        "stranger": valid | stranger,
        "forged": valid | {"fpk_alice": verification(url(bytes(flipped)))},
        "zeros": valid | {"fpk_alice": verification(url(bytes(64)))},
        "swapped keys": valid
        | {"fpk_alice": verification(bob), "fpk_bob": verification(alice)},
        "another time": valid | {"fpk_alice": verification(alice, SIGNED_AT + 1)},
        "another FAB": valid | {"fpk_alice": verification(url(signed(ALICE, OTHER_FAB)))},
        "another's name": valid | {"fpk_alice": verification(url(signed(EVE)))},
        "case of the id": valid | {"FPK_ALICE": verification(alice)},
        "short": valid | {"fpk_alice": verification(alice[:-4])},
        "long": valid | {"fpk_alice": verification(url(signed(ALICE) + b"x"))},
        "empty": valid | {"fpk_alice": verification("")},
        "no base64": valid | {"fpk_alice": verification("é")},
        "no signature": valid | {"fpk_alice": json.dumps({"signed_at": SIGNED_AT})},
        "no time": valid | {"fpk_alice": json.dumps({"signature": alice})},
        "time as text": valid | {"fpk_alice": verification(alice, str(SIGNED_AT))},
        "time as float": valid | {"fpk_alice": verification(alice, float(SIGNED_AT))},
        "negative time": valid | {"fpk_alice": verification(alice, -1)},
        "endless time": valid | {"fpk_alice": verification(alice, 2**64)},
        "no object": valid | {"fpk_alice": "[]"},
        "no JSON": valid | {"fpk_alice": "x"},
        "cut JSON": valid | {"fpk_alice": verification(alice)[:-1]},
        "empty JSON": valid | {"fpk_alice": ""},
        "a stranger's broken JSON": valid | good | {"fpk_eve": "{"},
    }
    write(
        "fab_trust.json",
        {
            "fab": FAB.decode(),
            "trusted": TRUSTED,
            "cases": [
                {"name": name, "verifications": case, "accepted": verify(case)}
                for name, case in cases.items()
            ],
            "files": files(),
        },
    )


def read_trusted(text: str) -> dict[str, str] | None:
    entities = cli._try_obtain_trusted_entities(Path(_file(text)))  # noqa: SLF001
    cli._validate_public_keys_ed25519(entities)  # noqa: SLF001
    return entities


def files() -> list[dict]:
    a, b = f"fpk_a: {ALICE_LINE}", f"fpk_b: {BOB_LINE}"
    rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQC7"
    ecdsa = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    nist = ecdsa.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode()
    cases = [
        f"{a}\n{b}\n",
        f"{a} a comment\n{b}",
        f"\n# reviewers\n{a}  # alice\n\n  # bob\n{b}\n",
        f"---\n{a}\n",
        f"\r\n{a}\r\n{b}\r\n",
        f"\ufeff{a}\n",
        f"  {a}\n  {b}\n",
        f"fpk_a: '{ALICE_LINE} it''s'\nfpk_b: \"{BOB_LINE} \\\"x\\\" # y\"\n",
        f"'fpk_a' : {ALICE_LINE}\n\"12\": {BOB_LINE}\n",
        f"fpk_a:\n  {ALICE_LINE}\nfpk_b:\n    '{BOB_LINE}'\n",
        f"fpk_a: ssh-ed25519\n  {ALICE_LINE.split()[1]}\n  me\n{b}\n",
        f"fpk_a: >\n  {ALICE_LINE}\n  me\nfpk_b: |-\n  {BOB_LINE}\n",
        f"fpk_a: >-  # folded\n  ssh-ed25519\n  {ALICE_LINE.split()[1]}\n",
        f"fpk_a: |\n  ssh-ed25519\n  {ALICE_LINE.split()[1]}\n",
        f"{{ fpk_a: '{ALICE_LINE} [comment1]', fpk_b: '{BOB_LINE} [comment2]' }}\n",
        f"{{fpk_a: {ALICE_LINE} me, # x\n fpk_b: {BOB_LINE},\n}} # end\n",
        f"{{ fpk_a : {ALICE_LINE}\n}}",
        json.dumps({"fpk_a": ALICE_LINE, "fpk_b": BOB_LINE}, indent=2),
        json.dumps({"fpk_a": ALICE_LINE}),
        f"fpk_a: {ALICE_LINE}\tme\n",
        f"fpk_a: ssh-ed25519 \t {ALICE_LINE.split()[1]}\n",
        f"fpk_a: {ALICE_LINE}#x\n",
        f"fpk_a: {ALICE_LINE} me:x\n",
        f"fpk_a: {rsa}\n",
        f"fpk_a: {nist}\n",
        f"fpk_a: {ALICE_LINE[:-4]}\n",
        f"fpk_a: {ALICE_LINE[:-1]}\n",
        f"fpk_a: {ALICE_LINE.replace('ssh-ed25519', 'ssh-rsa')}\n",
        f"fpk_a: {ALICE_LINE.split()[1]}\n",
        "fpk_a: ssh-ed25519\n",
        "fpk_a: ssh-ed25519 x\n",
        "fpk_a: 1\n",
        "fpk_a: true\n",
        "fpk_a:\n",
        "fpk_a: ''\n",
        "fpk_a\n",
        "",
        "# nothing\n",
        "[]\n",
        f"- {a}\n",
        f"fpk_a: [{ALICE_LINE}]\n",
        f"fpk_a:\n  - {ALICE_LINE}\n",
        f"fpk_a:\n  key: {ALICE_LINE}\n",
        f"fpk_a: {ALICE_LINE} me: x\n",
        f"\tfpk_a: {ALICE_LINE}\n",
        f"{a}\n  {b}\n",
        f"  {a}\n{b}\n",
        f"fpk_a: '{ALICE_LINE}\n",
        f"fpk_a: '{ALICE_LINE}' me\n",
        f"fpk_a: {ALICE_LINE} # x\n  me\n",
        f"{{ fpk_a: {ALICE_LINE}\n",
        f"{{ fpk_a: {ALICE_LINE} }}\n{b}\n",
        f"{{ fpk_a: {ALICE_LINE} fpk_b: {BOB_LINE} }}\n",
        f"{{ , fpk_a: {ALICE_LINE} }}\n",
        f"{a}\n---\n{b}\n",
        f"---\n---\n{a}\n",
        f"fpk_a: *x\n{b}\n",
        f"fpk_a: @{ALICE_LINE}\n",
        f"fpk_a: {ALICE_LINE}\x01\n",
        f"fpk_a:{ALICE_LINE}\n",
    ]
    stricter = {
        "{}\n": "Flower then trusts everyone",
        f"{a}\nfpk_a: {BOB_LINE}\n": "two keys of one name are a mistake",
        f"fpk_a: !!str {ALICE_LINE}\n": "a tag",
        f"fpk_a: &x {ALICE_LINE}\nfpk_b: *x\n": "an anchor",
        f"12: {ALICE_LINE}\n": "a number names no key",
        f"true: {ALICE_LINE}\n": "a bool names no key",
        f"fpk_a: '{ALICE_LINE}\n  me'\n": "a quoted text of two lines",
    }
    return [{"text": text, "entities": answer(read_trusted, text)} for text in cases] + [
        {"text": text, "entities": answer(read_trusted, text), "stricter": why}
        for text, why in stricter.items()
    ]


# -- node configuration -------------------------------------------------------------------------


def node_config() -> None:
    cases = [
        "",
        "partition-id=0 num-partitions=10",
        "key1=\"value1\" partition-id=0 num-partitions=100",
        "a='x y' b=\"it's\" c='say \"hi\"'",
        "a=1\tb=2\nc=3\r\nd=4",
        "  a=1  ",
        "i=-5 j=+7 k=1_000 h=0xff o=0o17 b=0b11 big=9223372036854775807",
        "x=1.5 y=-2e3 z=1e-7 w=6.02_2e+23 inf=inf ninf=-inf",
        "t=true f=false",
        "a.b=1 a.c=2",
        "a.b.c='x'",
        "'a b'=1",
        "'k'=1 \"l\"=2",
        "a={b=1}",
        "a={b=1,c={d='x'}}",
        "a=\"x\"b=2",
        "a=\"\"",
        "a=''",
        "u=\"\\u00e9\" n=\"a\\nb\" r='a\\nb'",
        "path='/data/site 1' url=\"http://h:1/?a=b\"",
        "e=\"a=b c=d\"",
        "a=1#x",
        "#a=1",
        "é='x'",
        "a='é'",
        "a=x",
        "a=/data",
        "a=True",
        "a=None",
        "a=1,b=2",
        "a=1, b=2",
        "a=[1,2]",
        "a=2026-01-01",
        "a=1 a=2",
        "a=1 a.b=2",
        "a.b=1 a=2",
        "a==1",
        "==1",
        "a=b=c",
        "a='x",
        "a=\"x y",
        "a=\"x\ny\"",
        "a=\"\\q\"",
        "a=\"x\\\"y\"",
        "a..b=1",
        "a+b=1",
        "a=01",
        "a=1.",
        "a=.5",
        "a=\x00",
        "[a]=1",
        "[x]#=1 y=2",
        "a='x'.toml",
        "/nonexistent/config.toml",
        "a=1 b=/nonexistent.toml",
    ]
    stricter = {
        "partition-id 0": "text without '='",
        "a = 1": "text without '='",
        "a=": "text without a value",
        "=1": "text without a key",
        "x a=1": "text without '='",
        "a=1 x": "text without '='",
        "a=1 b= c=3": "text without a value",
        "a=\"\"\"x\"\"\"": "text behind a value",
        "a='x''y'": "text behind a value",
        "big=9223372036854775808": "no 64-bit integer: Flower's node fails later, in every message",
        "'a.b'=1 a.b=2": "two keys of one name",
    }
    texts = [(text, "") for text in cases] + [(t, why) for t, why in stricter.items()]
    tables = []
    for text, why in texts:
        config = answer(parse_config_args, [text] if text else None)
        case = {"text": text, "config": config}
        if config is not None:
            case["config"] = {key: _typed(value) for key, value in config.items()}
        if why:
            case["stricter"] = why
        tables.append(case)
    document = "a = 1\n[b]\nc = 'x'\nd = 1.5\n"
    path = _file(document, ".toml")
    config = {key: _typed(value) for key, value in parse_config_args([path]).items()}
    write("node_config.json", {"cases": tables, "file": document, "file_config": config})


def _typed(value: object) -> list[str]:
    """Kind and text: JSON knows neither infinity nor that 1.0 is no integer."""
    kinds = {bool: "bool", int: "int", float: "float", str: "str"}
    return [kinds[type(value)], value.hex() if isinstance(value, float) else str(value)]


if __name__ == "__main__":
    node_keys()
    fab_trust()
    node_config()
