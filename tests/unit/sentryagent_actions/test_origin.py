"""The origins to which credentials may be sent."""

import pytest

from sentryagent_actions.origin import Origin


@pytest.mark.parametrize(
    ("written", "origin"),
    [
        ("https://idp.example.com", "https://idp.example.com"),
        ("https://idp.example.com/", "https://idp.example.com"),
        ("https://idp.example.com.", "https://idp.example.com"),
        ("HTTPS://IDP.Example.com:443/", "https://idp.example.com"),
        ("https://idp.example.com:8443", "https://idp.example.com:8443"),
        ("https://192.0.2.7", "https://192.0.2.7"),
        ("https://[2001:db8::1]:8443/", "https://[2001:db8::1]:8443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:3000/", "http://127.0.0.1:3000"),
        ("http://127.255.0.9:80", "http://127.255.0.9"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_origin_is_normalised(written, origin):
    """An origin is normalised: lower case, without default port and trailing slash."""
    assert str(Origin.from_base_url(written)) == origin


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("idp.example.com", "does not start with https://"),
        ("//idp.example.com", "does not start with https://"),
        ("ftp://idp.example.com", "does not start with https://"),
        ("https:idp.example.com", "does not start with https://"),
        ("https://", "does not start with https://"),
        ("https://idp.example.com/api", "has a path; write only the origin: https://idp.example.com"),
        ("https://idp.example.com//", "has a path"),
        ("https://idp.example.com?x=1", "has a query"),
        ("https://idp.example.com/?", "has a query"),
        ("https://idp.example.com#", "has a query or a fragment"),
        ("https://user:pw@idp.example.com", "user name"),
        ("https://@idp.example.com", "user name"),
        ("https://idp.example.com\\@evil.example", "backslash"),
        ("https://idp.example.com\n.evil.example", "space"),
        ("https://idp example.com", "space"),
        ("https://ídp.example.com", "ASCII"),
        ("https://idp.example.com:0", "port"),
        ("https://idp.example.com:", "port"),
        ("https://idp.example.com:99999", "port"),
        ("https://idp.example.com:http", "port"),
        ("https://[::1", "is not a URL"),
        ("https://[fe80::1%25eth0]", "host name"),
        ("https://-idp.example.com", "host name"),
        ("https://idp.example.com..", "host name"),
        ("https://.", "host name"),
        ("https://idp%2eexample.com", "host name"),
        ("http://idp.example.com", "must start with https://"),
        ("http://127.0.0.1.evil.example", "must start with https://"),
        ("http://localhost.evil.example", "must start with https://"),
        ("http://0x7f000001", "must start with https://"),
        ("http://10.0.0.1", "must start with https://"),
        ("http://[2001:db8::1]", "must start with https://"),
    ],
)
def test_base_url_is_refused_with_what_to_write(written, problem):
    """A URL to which no credential may be sent is refused with the reason."""
    with pytest.raises(ValueError, match=r".") as refusal:
        Origin.from_base_url(written)
    assert problem in str(refusal.value)


def test_origin_of_a_longer_url_is_its_beginning():
    """The origin of a URL has no path and query."""
    assert (
        str(Origin.of("https://run.example.com:8443/232//idtoken/a?api-version=2.0"))
        == "https://run.example.com:8443"
    )
