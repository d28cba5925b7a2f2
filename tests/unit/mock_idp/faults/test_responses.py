import json

import pytest

from mock_idp.faults.responses import RESPONSE_FAULTS, RawResponse

RESPONSE = RawResponse(200, b'{"count":3,"value":"abc"}')


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reset", {"reset": True}),
        ("truncated", {"cut": True}),
        ("empty", {"body": b""}),
        ("garbage", {"body": b"<html>bad gateway</html>"}),
        ("wrong-content-type", {"content_type": "text/html"}),
        ("not-an-object", {"body": b'["value"]'}),
        ("missing-members", {"body": b"{}"}),
        ("redirect", {"status": 302, "redirect": True}),
    ],
)
def test_response_faults_change_what_they_name(name, expected):
    """Each response fault changes the field that it is about."""
    response = RESPONSE_FAULTS[name](RESPONSE)

    assert {field: getattr(response, field) for field in expected} == expected


def test_a_huge_response_is_valid_json_of_sixteen_mebibytes():
    """The response is valid JSON, so that only a size limit can refuse it."""
    response = RESPONSE_FAULTS["huge"](RESPONSE)

    assert len(json.loads(response.body)["padding"]) == 16 * 1024 * 1024
