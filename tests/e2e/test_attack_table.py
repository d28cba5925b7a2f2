"""The table of the mock's manual: what the attack pack finds in well-known verifiers, measured again."""

import sys

import pytest

from kit.processes import ROOT

# Python 3.13 no longer refuses deep JSON, so this row depends on the interpreter.
OF_THE_INTERPRETER = "| `deep-json` |"


def _rows(text):
    """The lines of the table under the header, which has the versions."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [
        line
        for line in lines
        if not line.startswith(("| attack |", "| --- |", OF_THE_INTERPRETER, "| **GitHub"))
    ]


@pytest.mark.node
def test_the_table_of_the_manual_is_what_the_command_prints(environment, transcript):
    """`make attack-table` writes it; a new version of a library may change it."""
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
