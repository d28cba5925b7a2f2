"""`docs/threat-model.md` names a defence and a test for each attack, and both must exist."""

import re

import pytest

from kit.processes import ROOT

DOCUMENT = (ROOT / "docs" / "threat-model.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in DOCUMENT.splitlines()
    if re.match(r"\| [ABC]\d+ \|", line)
]
KNOWN = {*(f"A{number}" for number in range(1, 20)), *(f"B{number}" for number in range(1, 33))}


def quoted(cell):
    """The names in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def test_every_known_attack_has_its_row():
    """The attacks A1 to A19 and B1 to B32 all have a row, and no id occurs twice."""
    ids = [row[0] for row in ROWS]
    assert set(ids) >= KNOWN
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_what_exists(row):
    """Each attack has a defence in an existing file and at least one existing test."""
    _, attack, defence, modules, tests = row
    assert attack
    assert defence
    assert quoted(modules)
    assert [name for name in quoted(modules) if not (ROOT / name).is_file()] == []
    assert quoted(tests)
    for reference in quoted(tests):
        file, _, name = reference.partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), reference
