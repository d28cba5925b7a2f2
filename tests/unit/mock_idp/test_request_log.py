from collections import Counter

import pytest

from mock_idp.request_log import LogOverflowError, RequestLog
from mock_idp.strict_fields import InvalidFieldError


def _entry(endpoint, status=200, audience=None, repository=None):
    return {
        "at": "",
        "endpoint": endpoint,
        "method": "GET",
        "status": status,
        "repository": repository,
        "audience": audience,
    }


class Counted(RequestLog):
    """A log that has dropped no entries."""

    def request_counts(self):
        return Counter(entry["endpoint"] for entry in self.requests())


class Log(Counted):
    def requests(self):
        return [
            _entry("discovery"),
            _entry("jwks"),
            _entry("jwks", 503),
            _entry("token", 200, "a", "o/r"),
            _entry("token", 503, "a", "o/r"),
            _entry("token", 200, "b", "o/r"),
            _entry("token", None, "c", "o/r"),
        ]


def test_what_was_minted_is_asserted_by_its_members():
    """Only token requests that succeeded and that match the given fields count."""
    log = Log()

    assert log.minted(audience="a").once()["repository"] == "o/r"
    log.minted(audience="c").never()
    assert len(log.minted().times(2)) == len(log.minted(repository="o/r")) == 2
    assert [entry["audience"] for entry in log.asked("token", status=None)] == ["c"]


def test_fetches_are_counted_whatever_the_answer():
    """Failed fetches count too, so that a verifier that retries is noticed."""
    assert (Log().jwks_fetches, Log().discovery_fetches) == (2, 1)


def test_a_failed_assertion_shows_the_log():
    """The message of a failed assertion lists the log, so that no second run is needed."""
    with pytest.raises(AssertionError) as caught:
        Log().minted(audience="x").once()

    lines = str(caught.value).splitlines()
    assert lines[0] == "requests for token, status 200, audience 'x': expected 1, found 0. The log has:"
    assert lines[-1].strip() == "token GET reset repository=o/r audience=c"


def test_an_empty_log_is_told_too():
    """The message of a failed assertion says that the log is empty."""

    class Empty(Counted):
        def requests(self):
            return []

    with pytest.raises(AssertionError, match="The log has: nothing"):
        Empty().minted().once()


def test_a_log_without_requests_is_no_log():
    """`RequestLog` is abstract: a subclass must provide the requests."""
    with pytest.raises(TypeError, match="abstract"):
        RequestLog()


def test_what_the_log_has_forgotten_is_not_asserted():
    """No assertion is made about dropped entries: `.never()` would miss a token minted 10,001 requests ago."""

    class Full(Log):
        def request_counts(self):
            return {**super().request_counts(), "token": 5}

    with pytest.raises(LogOverflowError, match=r"token received 5 requests.*call reset"):
        Full().minted(audience="x").never()
    Full().asked("discovery").once()
    assert Full().jwks_fetches == 2


@pytest.mark.parametrize(
    ("endpoint", "field", "value"),
    [
        ("token", "event_name", "pull_reqest"),
        ("token", "event_name", ""),
        ("token", "ref_type", "commit"),
        ("token", "ref_protected", "True"),
        ("token", "repository_visibility", "Public"),
        ("token", "runner_environment", "github_hosted"),
        ("jwks", "method", "get"),
    ],
)
def test_a_misspelt_value_never_passes(endpoint, field, value):
    """A value that no entry can have is an error, because `.never()` would always pass."""
    with pytest.raises(InvalidFieldError, match=f"`{field}` must be one of"):
        Log().asked(endpoint, **{field: value}).never()
