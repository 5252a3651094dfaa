"""`umbel accounts`, as a person has it: with a file, with a terminal, without either."""

from __future__ import annotations

import json
import os
import pty
import subprocess

import pytest

from tests.harness.servers import umbel_bin


def accounts(up, *words: str, **more) -> subprocess.CompletedProcess:
    command = [str(umbel_bin()), "accounts", *words, "--state", str(up.state)]
    more = {"input": "", "start_new_session": True} | more
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **more)


def at_terminal(up, *words: str, typed: list[str]) -> tuple[int, str]:
    """What it says to somebody who answers each question; and its exit status."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(umbel_bin(), ["umbel", "accounts", *words, "--state", str(up.state)])
    shown = ""
    answers = list(typed)
    while True:
        try:
            shown += os.read(terminal, 4096).decode()
        except OSError:  # it has ended
            break
        if answers and shown.endswith(": "):
            os.write(terminal, f"{answers.pop(0)}\n".encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown


def test_accounts_come_and_go(doors, tmp_path):
    secret = tmp_path / "alice.password"
    secret.write_text("correct horse\n")
    made = accounts(doors, "add", "alice", "--new-password-file", str(secret), "--json")
    assert made.returncode == 0 and json.loads(made.stdout) == {"name": "alice", "admin": False}
    again = accounts(doors, "add", "alice", "--new-password-file", str(secret))
    assert again.returncode == 1 and "there is an account 'alice'" in again.stderr
    made = accounts(doors, "add", "bob", "--admin", "--new-password-file", "-", input="battery staple\n")
    assert made.returncode == 0 and "an admin" in made.stdout, made.stderr
    listed = json.loads(accounts(doors, "list", "--json").stdout)
    assert listed == [
        {"name": "Admin", "admin": True},
        {"name": "alice", "admin": False},
        {"name": "bob", "admin": True},
    ]
    table = accounts(doors, "list").stdout
    assert "alice" in table and "no" in table
    alice = ["--user", "alice", "--password-file", str(secret)]
    refused = accounts(doors, "list", *alice)
    assert refused.returncode == 1 and "for admins" in refused.stderr
    # Another's password leaves an admin one.
    changed = accounts(doors, "passwd", "bob", "--new-password-file", "-", input="other staple\n")
    assert changed.returncode == 0, changed.stderr
    assert json.loads(accounts(doors, "list", "--json").stdout)[2] == {"name": "bob", "admin": True}
    absent = accounts(doors, "passwd", "carol", "--new-password-file", str(secret))
    assert absent.returncode == 1 and "umbel accounts add" in absent.stderr
    own = accounts(doors, "passwd", *alice, "--new-password-file", "-", input="my own words\n")
    assert own.returncode == 0, own.stderr
    assert "wrong" in accounts(doors, "passwd", *alice, "--new-password-file", "-", input="x" * 9).stderr
    gone = accounts(doors, "rm", "alice")
    assert gone.returncode == 0 and "is gone" in gone.stdout
    assert "there is no account 'alice'" in accounts(doors, "rm", "alice").stderr
    short = accounts(doors, "add", "dave", "--new-password-file", "-", input="short\n")
    assert short.returncode == 2 and "password: it has 5 bytes, not 8" in short.stderr


def test_passwords_are_asked_for_and_never_shown(doors):
    status, shown = at_terminal(doors, "add", "alice", typed=["correct horse", "correct horse"])
    assert status == 0 and "account alice is made" in shown, shown
    assert "horse" not in shown
    status, shown = at_terminal(doors, "passwd", "alice", typed=["battery staple", "other staple"])
    assert status == 2 and "differ" in shown
    status, shown = at_terminal(doors, "passwd", "--user", "alice",
                                typed=["correct horse", "battery staple", "battery staple"])  # fmt: skip
    assert status == 0, shown
    assert doors.token("alice", "battery staple")


def test_nobody_to_ask_is_told_what_to_do(doors):
    for words in (("add", "alice"), ("list", "--user", "alice")):
        done = accounts(doors, *words)
        assert done.returncode == 1 and "no terminal" in done.stderr, done.stderr
        assert "password-file" in done.stderr


def test_admins_first_password_is_not_kept_when_it_is_changed(doors, tmp_path):
    secret = tmp_path / "admin"
    secret.write_text("a better one\n")
    assert accounts(doors, "passwd", "--new-password-file", str(secret)).returncode == 0
    assert not (doors.state / "admin.password").exists()
    assert "no terminal" in accounts(doors, "list").stderr
    assert accounts(doors, "list", "--password-file", str(secret)).returncode == 0


@pytest.mark.parametrize("words", [("add", "alice", "hunter22"), ("passwd", "alice", "hunter22"), ()])
def test_a_password_is_no_argument(doors, words):
    assert accounts(doors, *words).returncode == 2
