"""The table in the mock's manual with the attack pack's results for well-known verifiers."""

import sys

import pytest

from kit.processes import ROOT

# Since 3.13, Python accepts deeply nested JSON, so this row depends on the interpreter.
OF_THE_INTERPRETER = "| `deep-json` |"


def _rows(text):
    """The rows of the table, without the header, which contains the versions."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [
        line
        for line in lines
        if not line.startswith(("| attack |", "| --- |", OF_THE_INTERPRETER, "| **GitHub"))
    ]


@pytest.mark.node
def test_the_table_of_the_manual_is_what_the_command_prints(environment, transcript):
    """The manual's table equals the command's output; `make attack-table` updates it for new versions of the libraries."""
    done = transcript.run(
        sys.executable, ROOT / "examples" / "attack" / "compare.py", env=environment, timeout=150
    )

    manual = (ROOT / "mock_idp" / "README.md").read_text("utf-8")
    table = manual.partition("<!-- made by `make attack-table` -->")[2].partition(
        "<!-- end of the table -->"
    )[0]
    assert done.returncode == 0, done.stderr
    assert _rows(table) == _rows(done.stdout)
    assert len(_rows(table)) > 20
    assert [
        name for name in ("PyJWT", "joserfc", "jose", "google-auth", "OpenBao") if f"| {name} " not in table
    ] == []
