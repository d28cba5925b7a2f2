"""The report of an attack run, as a table, as JSON and as JUnit XML. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from mock_idp.attack.catalogue import LIMITED, NOT_SENT
from mock_idp.attack.risks import GITHUB_ONLY, HIGH, MAKERS, SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mock_idp.attack.catalogue import Attack, Result

OK: Final = "ok"
WRONG: Final = "WRONG"
KNOWN: Final = "known"
WEAK: Final = "weak"
_NOT_JUDGED: Final = (NOT_SENT, LIMITED)


@dataclass(frozen=True)
class Report:
    """The results of a run against `target`, a URL.

    `key_requests` is the number of requests for keys during the run. `baseline` has the names of the rows that are
    known to fail. With `strict`, tokens that only GitHub can make count, too.
    """

    target: str
    issuer: str
    results: Sequence[Result]
    key_requests: int = 0
    baseline: frozenset[str] = frozenset()
    strict: bool = False

    def mark(self, result: Result) -> str:
        """Return `ok`; `WRONG` (fails the run); `known` (in the baseline); `weak` (only GitHub can make the token)."""
        if result.is_as_expected:
            return OK
        risk = result.attack.risk
        if risk and result.attack.name in self.baseline:
            return KNOWN
        return WEAK if risk and risk.who == GITHUB_ONLY and not self.strict else WRONG

    @property
    def rows(self) -> list[Result]:
        """The results, ordered by who can make the token, then by severity; controls first."""
        return sorted(self.results, key=lambda result: _order(result.attack))

    @property
    def has_failed(self) -> bool:
        """Whether a row fails the run."""
        return WRONG in map(self.mark, self.results)

    @property
    def failing_names(self) -> list[str]:
        """The names of the rows that are not as expected."""
        return [result.attack.name for result in self.rows if not result.is_as_expected]

    def with_new_baseline(self) -> Report:
        """Return the same results with the failing rows as baseline, except controls and rows that were not judged."""
        judged = (
            result for result in self.results if result.attack.risk and result.verdict not in _NOT_JUDGED
        )
        return replace(self, baseline=frozenset(it.attack.name for it in judged if not it.is_as_expected))

    def table(self) -> str:
        """Return a line for each row, then the totals."""
        width = max(len(result.attack.name) for result in self.results)
        lines = [self._line(result, width) for result in self.rows]
        return "\n".join([*lines, "", *self._sums()])

    def _line(self, result: Result, width: int) -> str:
        attack = result.attack
        who, severity, rule = _judgement(attack)
        status = result.status or "-"
        answer = f" {result.note}." if result.note and (attack.probe or not result.is_as_expected) else ""
        return (
            f"{self.mark(result):<5} {attack.name:<{width}}  {who:<12} {severity:<6}  {result.verdict:<10} {status:>3}  "
            f"{attack.description}.{answer}{rule}"
        )

    def _sums(self) -> list[str]:
        lines = [self._sum_of(who) for who in MAKERS]
        fired = {result.attack.name for result in self.results}
        for what, names in (
            ("now as expected", (self.baseline & fired) - set(self.failing_names)),
            ("not in this run", self.baseline - fired),
        ):
            lines += [f"in the baseline, but {what}: {', '.join(sorted(names))}"] if names else []
        unsent = sum(result.verdict == NOT_SENT for result in self.results)
        if unsent:
            lines.append(f"not sent: {unsent}")
        lines.append(f"requests for keys in this run: {self.key_requests}")
        wrong = len(self.failing_names)
        return [*lines, f"{len(self.results) - wrong} of {len(self.results)} as expected"]

    def _sum_of(self, who: str) -> str:
        rows = [result for result in self.results if result.attack.risk and result.attack.risk.who == who]
        wrong = [result for result in rows if not result.is_as_expected]
        known = sum(self.mark(result) == KNOWN for result in wrong)
        notes = [f"{known} of them known"] if known else []
        if who == GITHUB_ONLY and not self.strict:
            notes.append("counted only with --strict")
        return f"{who}: {len(wrong)} of {len(rows)} wrong" + (f" ({'; '.join(notes)})" if notes else "")

    def as_json(self) -> str:
        """Return the report for `--json`."""
        report = {
            "target": self.target,
            "issuer": self.issuer,
            "passed": not self.has_failed,
            "asExpected": not self.failing_names,
            "keyRequests": self.key_requests,
            "results": [self._row(result) for result in self.rows],
        }
        return f"{json.dumps(report, indent=2, ensure_ascii=False)}\n"

    def _row(self, result: Result) -> dict[str, Any]:
        attack, risk = result.attack, result.attack.risk
        return {
            "name": attack.name,
            "asExpected": result.is_as_expected,
            "mark": self.mark(result).lower(),
            "who": risk.who if risk else None,
            "severity": risk.severity if risk else None,
            "source": risk.source if risk else None,
            "remedy": risk.remedy if risk else None,
            "story": attack.description,
            "expected": attack.expected,
            "verdict": result.verdict,
            "status": result.status or None,
            "note": result.note,
            "measured": result.measured,
            "seconds": round(result.seconds, 3),
        }

    def as_junit(self) -> str:
        """Return the report for `--junit`: a test case for each row; known and weak rows are skipped."""
        marks = [self.mark(result) for result in self.results]
        counts = {
            "tests": str(len(marks)),
            "failures": str(marks.count(WRONG)),
            "errors": "0",
            "skipped": str(marks.count(KNOWN) + marks.count(WEAK)),
        }
        suite = ET.Element("testsuite", {"name": f"mock-idp attack {self.target}", **counts})
        for result in self.rows:
            self._add_case(suite, result)
        return f"{ET.tostring(suite, 'unicode', xml_declaration=True)}\n"

    def _add_case(self, suite: ET.Element, result: Result) -> None:
        attack, mark = result.attack, self.mark(result)
        about = {"classname": "mock-idp.attack", "name": attack.name, "time": f"{result.seconds:.3f}"}
        case = ET.SubElement(suite, "testcase", about)
        if mark == OK:
            return
        who, severity, rule = _judgement(attack)
        message = f"expected {attack.expected}, got {result.verdict} ({who}, {severity}): {attack.description}.{rule}"
        kind = "failure" if mark == WRONG else "skipped"
        outcome = ET.SubElement(case, kind, {"message": message})
        outcome.text = _printable(f"{result.status or 'no status'} {result.note}")


def listing(attacks: Iterable[Attack]) -> str:
    """Return the catalogue for `--list`: a line for each row that can fail, in the order of the report."""
    rows = sorted((attack for attack in attacks if attack.risk), key=_order)
    width = max(len(attack.name) for attack in rows)
    lines = []
    for attack in rows:
        who, severity, rule = _judgement(attack)
        lines.append(f"{attack.name:<{width}}  {who:<12} {severity:<6}  {attack.description}.{rule}")
    return "\n".join(lines)


def _judgement(attack: Attack) -> tuple[str, str, str]:
    """Return who can make the token, the severity, and the remedy with its source; nobody and none for a control."""
    risk = attack.risk
    if risk is None:
        return "-", HIGH, ""
    return risk.who, risk.severity, f" {risk.remedy} ({risk.source})"


def _order(attack: Attack) -> tuple[int, int]:
    risk = attack.risk
    return (MAKERS.index(risk.who), SEVERITIES.index(risk.severity)) if risk else (-1, 0)


def _printable(text: str) -> str:
    """Replace unprintable characters: control characters in a verifier's response would make the XML invalid."""
    return "".join(character if character.isprintable() else "?" for character in text)
