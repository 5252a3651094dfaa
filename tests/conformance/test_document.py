"""docs/compatibility.md says what the recordings say."""

from __future__ import annotations

from . import document


def test_the_tables_are_in_step() -> None:
    text = document.DOC.read_text()
    assert document.BEGIN in text and document.END in text
    assert document.render(text) == text, "run: python -m tests.conformance --doc"
