"""What an attack run found, for people, for programs and for CI. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mock_idp.attack.catalogue import Result


def table(results: Sequence[Result]) -> str:
    """One line for each attack, those that went wrong marked and, once more with the response, at the end."""
    width = max(len(result.attack.name) for result in results)
    lines = [_row(result, width) for result in results]
    wrong = [result for result in results if not result.is_as_expected]
    for result in wrong:
        answer = f"{result.status or 'no status'} {result.note}".rstrip()
        lines += [
            "",
            f"{result.attack.name}: {result.attack.description}",
            f"  {result.attack.expected} expected, {result.verdict}; answer {answer}",
        ]
    lines += ["", f"{len(results) - len(wrong)} of {len(results)} as expected"]
    return "\n".join(lines)


def _row(result: Result, width: int) -> str:
    mark = "ok   " if result.is_as_expected else "WRONG"
    status = result.status or "-"
    return (
        f"{mark} {result.attack.name:<{width}}  {result.verdict:<10} {status:>3}  {result.attack.description}"
    )


def as_json(target: str, issuer: str, results: Sequence[Result]) -> str:
    """The report of `--json`."""
    report = {
        "target": target,
        "issuer": issuer,
        "asExpected": all(result.is_as_expected for result in results),
        "results": [result.as_json() for result in results],
    }
    return f"{json.dumps(report, indent=2, ensure_ascii=False)}\n"


def as_junit(target: str, results: Sequence[Result]) -> str:
    """The report of `--junit`: one test case for each attack."""
    wrong = [result for result in results if not result.is_as_expected]
    counts = {"tests": str(len(results)), "failures": str(len(wrong)), "errors": "0"}
    suite = ET.Element("testsuite", {"name": f"mock-idp attack {target}", **counts})
    for result in results:
        about = {"classname": "mock-idp.attack", "name": result.attack.name, "time": f"{result.seconds:.3f}"}
        case = ET.SubElement(suite, "testcase", about)
        if result in wrong:
            message = f"{result.attack.expected} expected, {result.verdict}: {result.attack.description}"
            failure = ET.SubElement(case, "failure", {"message": message})
            failure.text = _printable(f"{result.status or 'no status'} {result.note}")
    return f"{ET.tostring(suite, 'unicode', xml_declaration=True)}\n"


def _printable(text: str) -> str:
    """What XML may contain: a verifier's response may have control characters, which break the file."""
    return "".join(character if character.isprintable() else "?" for character in text)
