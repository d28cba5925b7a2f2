import pytest

from mock_idp.attack.verifier import Verifier


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("http://127.0.0.1:3000/x", True),
        ("http://127.9.9.9/", True),
        ("http://[::1]:3000/", True),
        ("https://localhost/", True),
        ("http://localhost.example.com/", False),
        ("http://127.0.0.1.example.com/", False),
        ("http://192.168.0.1/", False),
        ("http://0.0.0.0/", False),
        ("https://id.example.com/", False),
    ],
)
def test_only_loopback_is_this_machine(url, is_here):
    """Only a loopback address or `localhost` is this machine; other names may resolve anywhere."""
    assert Verifier(url, "bearer").is_on_this_machine is is_here
