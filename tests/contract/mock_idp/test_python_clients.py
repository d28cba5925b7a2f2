"""Third-party clients and verifiers in Python: PyPI's `id`, google-auth, joserfc and PyJWT."""

import time

import id as oidc_identity
import jwt
import pytest
from google.auth import identity_pool
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

AUDIENCE = "https://id.example.com/?a=b&c=d"


@pytest.fixture
def job(idp, monkeypatch):
    """Set a job's variables in this process's environment."""
    started = idp.job(environment="production")
    for name, value in started["variables"].items():
        monkeypatch.setenv(name, value)
    return started


def _verified(idp, token, audience=AUDIENCE):
    """The claims, verified by a library that was not used to create the token."""
    keys = KeySet.import_key_set(idp.state.ring.key_set())
    token = joserfc_jwt.decode(token, keys, algorithms=["RS256"])
    joserfc_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": idp.issuer},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
    ).validate(token.claims)
    return token.claims


def test_pypi_id_gets_a_token_for_its_audience(idp, job):
    """PyPI's `id`, which twine, sigstore and PyPI's publishing action use, merges the audience into the URL's query."""
    claims = _verified(idp, oidc_identity.detect_credential(AUDIENCE))

    assert claims["sub"] == "repo:octo-org/hello-agent:environment:production"
    assert idp.minted(audience=AUDIENCE).once()


def test_pypi_id_says_what_is_missing(monkeypatch, idp):
    """Without the permission, the client finds no variable, as on GitHub."""
    for name, value in idp.job(id_token="none")["variables"].items():
        monkeypatch.setenv(name, value)
    for name in ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(oidc_identity.GitHubOidcPermissionCredentialError):
        oidc_identity.detect_credential(AUDIENCE)


@pytest.mark.parametrize(("status", "tries"), [(503, 1), (500, 1), (401, 1)])
def test_pypi_id_does_not_try_again_after_an_answer(idp, job, status, tries):
    """The client never retries, as the manual's table says."""
    idp.plan_fault("token", status=status)

    with pytest.raises(oidc_identity.AmbientCredentialError, match=f"code={status}"):
        oidc_identity.detect_credential(AUDIENCE)
    assert len(idp.asked("token")) == tries


def _pool(job, url):
    source = {
        "url": f"{url}&audience=https%3A%2F%2Fiam.example.com",
        "headers": {"Authorization": f"Bearer {job['requestToken']}"},
        "format": {"type": "json", "subject_token_field_name": "value"},
    }
    return identity_pool.Credentials(
        audience="//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/github",
        subject_token_type="urn:ietf:params:oauth:token-type:jwt",
        token_url="http://127.0.0.1:1/token",
        credential_source=source,
    )


def test_google_auth_reads_the_token_where_google_github_actions_auth_points(idp, job):
    """A configuration as written by google-github-actions/auth, with URL, header and field name, gets a token."""
    token = _pool(job, job["requestUrl"]).retrieve_subject_token(Request())

    assert _verified(idp, token, "https://iam.example.com")["repository"] == "octo-org/hello-agent"


def test_google_auth_refuses_a_job_that_has_ended(idp, job):
    """After the job has ended, google-auth's request is refused."""
    idp.end_job(job["jobId"])

    with pytest.raises(RefreshError):
        _pool(job, job["requestUrl"]).retrieve_subject_token(Request())


@pytest.mark.parametrize(
    "fault", ["bad-signature", "alg-none", "hs256-with-public-key", "own-jwk", "wrong-audience", "expired"]
)
def test_joserfc_refuses_what_is_wrong(idp, fault):
    """An independent verifier, which has only the mock's key set, refuses each fault."""
    with pytest.raises((JoseError, ValueError)):
        _verified(idp, idp.mint(audience=AUDIENCE, fault=fault))


def test_pyjwt_finds_a_rotated_key_by_asking_once_more(idp):
    """PyJWT fetches the key set exactly once more for an unknown kid (here without its cooldown of 30 s)."""
    client = jwt.PyJWKClient(f"{idp.url}/.well-known/jwks", cooldown_duration=0)
    client.get_signing_key_from_jwt(idp.mint())
    idp.rotate()

    token = idp.mint(audience=AUDIENCE)
    key = client.get_signing_key_from_jwt(token)

    assert jwt.decode(token, key, ["RS256"], audience=AUDIENCE)["exp"] > time.time()
    assert idp.jwks_fetches == 2
