"""The container's health check against a mock with and without TLS."""

import click
import pytest

from mock_idp.http.health import is_healthy
from mock_idp.server import MockIdp


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_mock_that_answers_is_healthy(ring, certificate, is_tls):
    """A mock that responds is healthy, whatever its certificate."""
    with MockIdp(ring=ring, tls=certificate.context if is_tls else None) as idp:
        variables = {"MOCK_IDP_PORT": idp.url.rpartition(":")[2]}

        assert is_healthy(variables | ({"MOCK_IDP_TLS": "1"} if is_tls else {}))
        assert not is_healthy(variables | ({} if is_tls else {"MOCK_IDP_TLS": "1"}))


@pytest.mark.parametrize("value", ["0", "off", "No", "False ", "f", "n", ""])
def test_tls_is_off_if_the_command_reads_the_variable_so(ring, value):
    """A container with `MOCK_IDP_TLS=0` serves HTTP, and is healthy."""
    assert click.BOOL.convert(value, None, None) is False
    with MockIdp(ring=ring) as idp:
        assert is_healthy({"MOCK_IDP_PORT": idp.url.rpartition(":")[2], "MOCK_IDP_TLS": value})


def test_nothing_that_listens_is_not_healthy():
    """A port on which nothing listens is not healthy."""
    assert not is_healthy({"MOCK_IDP_PORT": "1"})
