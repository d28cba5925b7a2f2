"""The error codes and statuses in the code match docs/errors.md."""

import re
from itertools import chain
from pathlib import Path

import pytest

import sentryagent_idp
from sentryagent_idp import errors
from sentryagent_idp.api.problems import PROBLEMS

SOURCE = Path(sentryagent_idp.__file__).parent
DOCUMENT = SOURCE.parents[1] / "docs" / "errors.md"
ABSTRACT = {errors.ServiceError, errors.RetryableError, errors.ExchangeRefused}


def _subclasses(parent):
    return set(chain([parent], *map(_subclasses, parent.__subclasses__())))


def _rows(heading):
    """The cells of the table under a heading of the document, row by row."""
    section = DOCUMENT.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    assert lines, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_refusal_has_a_status():
    """Each concrete error has a response in PROBLEMS, and nothing else has one."""
    concrete = _subclasses(errors.ServiceError) - ABSTRACT

    assert len(concrete) > 20
    assert PROBLEMS.keys() == concrete
    assert all(re.fullmatch(r"[A-Z]+(_[A-Z]+)*", error.code) for error in concrete)


def test_document_has_every_code_as_the_code_has_it():
    """The documented codes, statuses and OAuth errors are exactly those in the code."""
    documented = {
        (code.strip("`"), int(status), *pair)
        for code, status, oauth, _, _ in _rows("Codes")
        for pair in re.findall(r"`(\w+)` (\d{3})", oauth)
    }

    assert documented == {
        (error.code, it.status, it.oauth_error, str(it.oauth_status)) for error, it in PROBLEMS.items()
    }


def test_document_has_every_reason():
    """The documented reasons of an invalid ID token are exactly those in the code."""
    text = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    raised = set(re.findall(r'InvalidOidcToken\(\s*"(\w+)"', text))

    assert len(raised) > 10
    assert {reason.strip("`") for reason, _, _ in _rows("Reasons of `INVALID_OIDC_TOKEN`")} == raised
    assert set(errors.InvalidOidcToken.reasons) == raised


@pytest.mark.parametrize("heading", ["Codes", "Reasons of `INVALID_OIDC_TOKEN`"])
def test_every_row_says_what_to_do(heading):
    """Every row says when the error occurs and what to do, and no code is listed twice."""
    rows = _rows(heading)

    assert all(len(cell) > 3 for row in rows for cell in row if not cell.isdigit())
    assert len({row[0] for row in rows}) == len(rows)
