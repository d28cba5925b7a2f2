"""The report for `--sarif`: SARIF 2.1.0 (OASIS), as read by GitHub code scanning and other tools. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from mock_idp.attack.report import KNOWN, WEAK
from mock_idp.attack.risks import HIGH, LOW, MEDIUM

if TYPE_CHECKING:
    from mock_idp.attack.catalogue import Attack, Result
    from mock_idp.attack.report import Report

_LEVELS: Final = {HIGH: "error", MEDIUM: "warning", LOW: "note"}
# GitHub's scale: over 7.0 high, 4.0 to 6.9 medium, below that low.
_SECURITY_SEVERITIES: Final = {HIGH: "8.0", MEDIUM: "5.0", LOW: "2.0"}
_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def as_sarif(report: Report, version: str) -> str:
    """Return a rule for each row of the run and a result for each unexpected one; `version` is that of mock-idp."""
    failing = [result for result in report.rows if not result.is_as_expected]
    driver = {
        "name": "mock-idp attack",
        "version": version,
        "informationUri": "https://github.com/sentryagent/toolkit/blob/main/mock_idp/README.md#attack-a-verifier",
        "rules": [_rule(result.attack) for result in report.rows],
    }
    run = {
        "tool": {"driver": driver},
        "results": [_result(report, result) for result in failing],
        "properties": {"target": report.target},
    }
    return f"{json.dumps({'$schema': _SCHEMA, 'version': '2.1.0', 'runs': [run]}, indent=2, ensure_ascii=False)}\n"


def _rule(attack: Attack) -> dict[str, Any]:
    risk = attack.risk
    severity = risk.severity if risk else HIGH
    remedy = f"{risk.remedy} Source: {risk.source}." if risk else "The verifier must accept a valid token."
    return {
        "id": attack.name,
        "shortDescription": {"text": attack.description},
        "fullDescription": {
            "text": f"{attack.description}; can be made by: {risk.who if risk else 'the right job'}"
        },
        "help": {"text": remedy},
        "defaultConfiguration": {"level": _LEVELS[severity]},
        "properties": {"tags": ["security"], "security-severity": _SECURITY_SEVERITIES[severity]},
    }


def _result(report: Report, result: Result) -> dict[str, Any]:
    attack, mark = result.attack, report.mark(result)
    severity = attack.risk.severity if attack.risk else HIGH
    answer = " ".join(filter(None, [str(result.status or ""), result.note]))
    message = f"expected {attack.expected}, got {result.verdict}: {attack.description}" + (
        f"; {answer}" if answer else ""
    )
    return {
        "ruleId": attack.name,
        "level": "note" if mark == WEAK else _LEVELS[severity],
        "message": {"text": message},
        "locations": [_location(report.target)],
        "partialFingerprints": {"attackName/v1": attack.name},
        **({"baselineState": "unchanged" if mark == KNOWN else "new"} if report.baseline else {}),
    }


def _location(target: str) -> dict[str, Any]:
    """Return the verifier's host and path as a file location.

    Code scanning refuses a whole report that contains a URL ("did not match the checkout URI scheme"), and requires a
    line.
    """
    parts = urlsplit(target)
    host = parts.netloc.rpartition("@")[2]
    file = {"uri": quote(host + parts.path, safe="/%")}
    return {"physicalLocation": {"artifactLocation": file, "region": {"startLine": 1}}}
