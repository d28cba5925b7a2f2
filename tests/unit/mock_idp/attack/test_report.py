import json
from xml.etree import ElementTree as ET

import pytest

from mock_idp.attack.catalogue import Attack, Result
from mock_idp.attack.report import as_json, as_junit, table

RESULTS = (
    Result(Attack("control", "a right token", expected="accepted"), "accepted", 200, "{}", 0.01),
    Result(Attack("alg-none", "unsigned"), "accepted", 200, "welcome\x1b[31m <b>", 0.02),
    Result(Attack("expired", "too late"), "broken", 0, "no answer: timed out", 1.0),
    Result(Attack("replay", "again"), "refused", 401, "", 0.0),
)


def test_the_table_marks_what_went_wrong_and_explains_it_at_the_end():
    """One line for each attack; the answers of the wrong ones stand below."""
    text = table(RESULTS)

    assert text.count("WRONG") == 2
    assert "ok    control   accepted   200  a right token" in text
    assert "expired: too late\n  refused expected, broken; answer no status no answer: timed out" in text
    assert text.endswith("2 of 4 as expected")


def test_the_json_report_is_complete():
    """Target, issuer and each result with what was expected."""
    report = json.loads(as_json("http://a/", "http://b", RESULTS))

    assert (report["target"], report["issuer"], report["asExpected"]) == ("http://a/", "http://b", False)
    assert [it["asExpected"] for it in report["results"]] == [True, False, False, True]
    assert report["results"][2]["status"] is None
    assert json.loads(as_json("a", "b", RESULTS[:1]))["asExpected"] is True


def test_the_junit_report_is_what_ci_reads():
    """A case for each attack, a failure for each wrong one, and no character that breaks XML."""
    suite = ET.fromstring(as_junit("http://a/", RESULTS))

    assert (suite.tag, suite.get("tests"), suite.get("failures")) == ("testsuite", "4", "2")
    failures = {case.get("name"): case.find("failure") for case in suite}
    assert failures["control"] is failures["replay"] is None
    assert failures["alg-none"].get("message") == "refused expected, accepted: unsigned"
    assert failures["alg-none"].text == "200 welcome?[31m <b>"


@pytest.mark.parametrize("result", RESULTS)
def test_a_report_of_one_result_is_a_report_too(result):
    """Also the shortest run gives a table."""
    assert result.attack.name in table([result])
