import pytest

from mock_idp.faults.documents import DISCOVERY_FAULTS, KEY_SET_FAULTS
from mock_idp.signing_keys import make_key

ISSUER = "http://127.0.0.1:3001"


@pytest.mark.parametrize("name", KEY_SET_FAULTS)
def test_no_faulty_key_set_gives_the_right_key_for_the_kid(name, ring):
    """A verifier that takes the first key with the token's kid never gets the right RSA key."""
    keys = KEY_SET_FAULTS[name](ring.key_set(), make_key(with_certificate=False))["keys"]

    first = next((key for key in keys if key.get("kid") == ring.signing.kid), {})
    assert (first.get("n"), first.get("kty")) != (ring.signing.jwk()["n"], "RSA")


@pytest.mark.parametrize("name", DISCOVERY_FAULTS)
def test_faulty_discovery_documents_mislead_about_issuer_or_keys(name):
    """Each document has either a wrong issuer or a wrong URL of the keys."""
    good = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/.well-known/jwks", "scopes_supported": ["openid"]}

    faulty = DISCOVERY_FAULTS[name](good)

    assert {key for key in good if faulty.get(key) != good[key]} in ({"issuer"}, {"jwks_uri"})
