import dataclasses
import json
from xml.etree import ElementTree as ET

import pytest

from mock_idp.attack.catalogue import CONTROL, LAST_CONTROL, Attack, Result
from mock_idp.attack.report import Report, listing
from mock_idp.attack.sarif import as_sarif

RESULTS = (
    Result(CONTROL, "accepted", 200, "", 0.01),
    Result(Attack("padded", "padding"), "accepted", 200, "", 0.02),
    Result(Attack("float-times", "a fraction"), "accepted", 200, "", 0.02),
    Result(Attack("namesake", "another owner"), "refused", 403, "no", 0.02),
    Result(Attack("alg-none", "unsigned"), "accepted", 200, "welcome\x1b[31m <b>", 0.02),
    Result(Attack("expired", "too late"), "broken", 0, "no response: timed out", 1.0),
    Result(Attack("replay", "again", probe="replay"), "refused", 401, "", 0.0),
)
REPORT = Report("http://a/", "http://b", RESULTS, 3)


def _with(*names, **changes):
    return dataclasses.replace(REPORT, results=[it for it in RESULTS if it.attack.name in names], **changes)


def test_each_line_says_who_can_make_it_how_bad_it_is_and_what_to_do():
    """Rows are sorted by who can make the token, then by severity; controls come first."""
    lines = REPORT.table().splitlines()

    assert [line.split()[:2] for line in lines[:7]] == [
        ["ok", "control"],
        ["WRONG", "alg-none"],
        ["WRONG", "expired"],
        ["ok", "replay"],
        ["WRONG", "padded"],
        ["ok", "namesake"],
        ["weak", "float-times"],
    ]
    assert lines[1].startswith("WRONG alg-none     anyone       high    accepted   200  unsigned. welcome")
    assert lines[1].endswith("Allow only RS256, and never let the header choose. (RFC 8725 3.1)")
    assert "broken       -  too late. no response: timed out. Require `exp`" in lines[2]
    assert "no." not in lines[5]


def test_the_sums_stand_below():
    """The totals are grouped by who can make the token."""
    assert REPORT.table().splitlines()[7:] == [
        "",
        "anyone: 3 of 4 wrong",
        "a repository: 0 of 1 wrong",
        "GitHub only: 1 of 1 wrong (counted only with --strict)",
        "requests for keys in this run: 3",
        "3 of 7 as expected",
    ]


@pytest.mark.parametrize(
    ("names", "baseline", "strict", "failed"),
    [
        (["control", "replay", "namesake"], [], False, False),
        (["padded"], [], False, True),
        (["float-times"], [], False, False),
        (["float-times"], [], True, True),
        (["float-times"], ["float-times"], True, False),
        (["padded"], ["padded"], False, False),
        (["padded", "alg-none"], ["padded"], False, True),
    ],
)
def test_what_fails_a_run(names, baseline, strict, failed):
    """A run fails on wrong results that are not in the baseline; those only GitHub can make count with `strict` only."""
    assert _with(*names, baseline=frozenset(baseline), strict=strict).has_failed is failed


def test_a_control_that_is_refused_at_the_end_fails_every_run():
    """A refused final control fails every run, whatever the baseline: the refusals before it may mean nothing."""
    last = Result(LAST_CONTROL, "refused", 403, "", 0.0)
    report = Report("http://a/", "http://b", [last], 0, frozenset({"control-again"}))

    assert report.has_failed
    assert report.with_new_baseline().has_failed
    assert report.with_new_baseline().baseline == frozenset()


def test_a_new_baseline_has_what_is_wrong_and_was_judged():
    """The new baseline omits attacks that were not sent or were rate-limited, because they may be right."""
    more = [
        Result(Attack(name, "…"), verdict, 0, "", 0.0)
        for name, verdict in (("kid-sql", "not sent"), ("own-jwk", "limited"))
    ]

    report = dataclasses.replace(REPORT, results=[*RESULTS, *more]).with_new_baseline()

    assert report.baseline == {"padded", "float-times", "alg-none", "expired"}
    assert report.has_failed


def test_the_table_tells_what_a_baseline_hides_and_what_it_need_not():
    """Known failures are marked, and baseline names that are no longer wrong are listed."""
    text = _with("padded", "replay", baseline=frozenset({"padded", "replay", "gone"})).table()

    assert "known padded" in text
    assert "anyone: 1 of 2 wrong (1 of them known)" in text
    assert "in the baseline, but now as expected: replay\n" in text
    # Excluded by --only or misspelt: this run says nothing about it.
    assert "in the baseline, but not in this run: gone\n" in text


def test_the_table_counts_what_was_not_sent():
    """The table counts the attacks that were not sent before the time limit."""
    result = Result(Attack("kid-sql", "…"), "not sent", 0, "the time limit was reached", 0.0)

    assert "not sent: 1" in Report("http://a/", "http://b", [result]).table()


def test_the_json_report_is_complete():
    """The JSON has the target, the issuer and every result with expectation, maker, severity and remedy."""
    report = json.loads(REPORT.as_json())

    assert (report["target"], report["issuer"], report["asExpected"], report["passed"]) == (
        "http://a/",
        "http://b",
        False,
        False,
    )
    assert report["keyRequests"] == 3
    rows = {row["name"]: row for row in report["results"]}
    assert [row["asExpected"] for row in report["results"]] == [True, False, False, True, False, True, False]
    assert (
        rows["alg-none"].items()
        >= {
            "who": "anyone",
            "severity": "high",
            "source": "RFC 8725 3.1",
            "mark": "wrong",
        }.items()
    )
    assert rows["alg-none"]["remedy"].startswith("Allow only RS256")
    assert (rows["control"]["who"], rows["expired"]["status"]) == (None, None)
    assert json.loads(_with("control").as_json())["asExpected"] is True
    assert json.loads(_with("float-times").as_json())["passed"] is True


def test_the_junit_report_is_what_ci_reads():
    """Each row is a test case; wrong ones fail, weak and known ones are skipped, and no character breaks the XML."""
    suite = ET.fromstring(dataclasses.replace(REPORT, baseline=frozenset({"padded"})).as_junit())

    counts = {name: suite.get(name) for name in ("tests", "failures", "skipped", "errors")}
    assert counts == {"tests": "7", "failures": "2", "skipped": "2", "errors": "0"}
    outcomes = {case.get("name"): [it.tag for it in case] for case in suite}
    assert outcomes == {
        "control": [],
        "alg-none": ["failure"],
        "expired": ["failure"],
        "replay": [],
        "padded": ["skipped"],
        "namesake": [],
        "float-times": ["skipped"],
    }
    failure = next(case for case in suite if case.get("name") == "alg-none").find("failure")
    assert failure.get("message").startswith(
        "expected refused, got accepted (anyone, high): unsigned. Allow only RS256"
    )
    assert failure.text == "200 welcome?[31m <b>"


@pytest.mark.parametrize("result", RESULTS)
def test_a_report_of_one_result_is_a_report_too(result):
    """A report with a single result can be printed."""
    assert result.attack.name in Report("http://a/", "http://b", [result]).table()


def test_the_sarif_report_is_what_code_scanning_reads():
    """Each row is a rule; each wrong row is a result with a level, a location and a fingerprint."""
    sarif = json.loads(as_sarif(REPORT, "1.2.3"))

    assert sarif["version"] == "2.1.0"
    [run] = sarif["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"], len(driver["rules"])) == ("mock-idp attack", "1.2.3", 7)
    rules = {rule["id"]: rule for rule in driver["rules"]}
    assert rules["alg-none"]["properties"]["security-severity"] == "8.0"
    assert rules["alg-none"]["help"]["text"].endswith("Source: RFC 8725 3.1.")
    assert {it["ruleId"]: it["level"] for it in run["results"]} == {
        "alg-none": "error",
        "expired": "error",
        "padded": "note",
        "float-times": "note",
    }
    result = next(it for it in run["results"] if it["ruleId"] == "alg-none")
    assert run["properties"] == {"target": "http://a/"}
    assert result["message"]["text"].startswith("expected refused, got accepted: unsigned; 200 welcome")
    assert "baselineState" not in result


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        ("http://127.0.0.1:3000/login?realm=a", "127.0.0.1%3A3000/login"),
        ("http://localhost:3000", "localhost%3A3000"),
        ("https://u:secret@id.example.com/a%20b", "id.example.com/a%20b"),
        ("http://[::1]:3000/login", "%5B%3A%3A1%5D%3A3000/login"),
    ],
)
def test_the_place_in_the_sarif_report_is_one_that_code_scanning_takes(target, uri):
    """Code scanning refuses absolute URLs, and a colon in the first segment would make one (RFC 3986, 4.2)."""
    [run] = json.loads(as_sarif(dataclasses.replace(REPORT, target=target), "1"))["runs"]

    places = [location["physicalLocation"] for result in run["results"] for location in result["locations"]]
    assert places == [{"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}] * len(run["results"])


def test_the_sarif_report_tells_known_from_new():
    """`baselineState` tells known results from new ones (SARIF 2.1.0, 3.27.24)."""
    results = json.loads(as_sarif(dataclasses.replace(REPORT, baseline=frozenset({"padded"})), "1"))["runs"][
        0
    ]["results"]

    states = {it["ruleId"]: it["baselineState"] for it in results}
    assert states == {"alg-none": "new", "expired": "new", "padded": "unchanged", "float-times": "new"}


def test_the_list_has_every_row_but_the_controls():
    """The list has the order of the report and no controls."""
    lines = listing(result.attack for result in RESULTS).splitlines()

    assert [line.split()[0] for line in lines] == [
        "alg-none",
        "expired",
        "replay",
        "padded",
        "namesake",
        "float-times",
    ]
    assert lines[0].startswith("alg-none     anyone       high    unsigned. Allow only RS256")
