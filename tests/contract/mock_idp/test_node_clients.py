"""Third-party clients and verifiers in JavaScript: the current @actions/core, jose and openid-client from npm."""

import json
import os
import subprocess

import jwt
import pytest

AUDIENCE = "https://id.example.com/?a=b&c=d"
SCRIPTS = {
    "token": """
import * as core from '@actions/core'
const audience = process.argv[2]
core.getIDToken(audience).then(value => result({value}), error => result({error: error.message}))
""",
    "verify": """
import * as jose from 'jose'
const [keys, issuer, audience, ...tokens] = process.argv.slice(2)
const set = jose.createRemoteJWKSet(new URL(keys), {cooldownDuration: 0})
const answers = []
for (const token of tokens) {
  try {
    const {payload} = await jose.jwtVerify(token, set, {issuer, audience, algorithms: ['RS256']})
    answers.push(payload.repository)
  } catch (error) { answers.push(error.code) }
}
result(answers)
""",
    "discover": """
import * as client from 'openid-client'
const options = {execute: [client.allowInsecureRequests]}
client.discovery(new URL(process.argv[2]), 'id', undefined, undefined, options).then(
  found => result({keys: found.serverMetadata().jwks_uri}), error => result({code: error.code}))
""",
}
RESULT = "function result(value) { process.stderr.write(JSON.stringify(value)) }\n"

pytestmark = [pytest.mark.node, pytest.mark.xdist_group("node")]


@pytest.fixture(scope="session")
def node_folder(npm_packages):
    """A folder with the packages and the scripts."""
    for name, text in SCRIPTS.items():
        (npm_packages / f"{name}.mjs").write_text(RESULT + text)
    return npm_packages


@pytest.fixture
def node(node_folder):
    """Run a script with arguments and variables; return its result and its output."""

    def node(script, *words, **variables):
        environ = {"PATH": os.environ["PATH"], **variables}
        command = ["node", f"{script}.mjs", *words]
        done = subprocess.run(
            command, cwd=node_folder, env=environ, capture_output=True, text=True, timeout=60
        )
        return json.loads(done.stderr) if done.stderr else None, done.stdout

    return node


def test_the_toolkit_gets_a_token_and_masks_it(idp, node):
    """`getIDToken` of @actions/core passes the audience unchanged and masks the token before it returns it."""
    answer, printed = node("token", AUDIENCE, **idp.job(ref="refs/tags/v1")["variables"])

    claims = jwt.decode(
        answer["value"], idp.state.ring.signing.private.public_key(), ["RS256"], audience=AUDIENCE
    )
    assert claims["sub"] == "repo:octo-org/hello-agent:ref:refs/tags/v1"
    assert f"::add-mask::{answer['value']}" in printed
    assert idp.minted(audience=AUDIENCE).once()


def test_the_toolkit_without_an_audience_gets_the_owners(idp, node):
    """Without an audience, the toolkit gets GitHub's default, the owner's URL."""
    answer, _ = node("token", "", **idp.job()["variables"])

    assert (
        jwt.decode(answer["value"], options={"verify_signature": False})["aud"]
        == "https://github.com/octo-org"
    )


def test_the_toolkit_says_what_is_missing(idp, node):
    """Without `id-token: write`, the toolkit names the missing variable."""
    answer, _ = node("token", AUDIENCE, **idp.job(id_token="none")["variables"])

    assert "Unable to get ACTIONS_ID_TOKEN_REQUEST_URL env variable" in answer["error"]


@pytest.mark.parametrize(
    ("fault", "tries", "message"),
    [
        ({"status": 503, "times": 2}, 3, None),
        ({"status": 502, "times": 1}, 2, None),
        ({"status": 500}, 1, "Error Code : 500"),
        ({"status": 429}, 1, "Error Code : 429"),
        ({"status": 404}, 1, "do not have ID Token field"),
        ({"fault": "missing-members"}, 1, "do not have ID Token field"),
        ({"fault": "reset"}, 1, "ECONNRESET"),
        ({"fault": "redirect"}, 51, "Failed request: (302)"),
    ],
)
def test_the_toolkit_meets_faults_as_the_manual_says(idp, node, fault, tries, message):
    """The toolkit retries only 502 to 504, and follows redirects, as the manual says."""
    idp.plan_fault("token", **fault)

    answer, _ = node("token", AUDIENCE, **idp.job()["variables"])

    assert len(idp.asked("token")) == tries
    assert ("value" in answer) if message is None else (message in answer["error"])


def test_jose_verifies_by_the_key_set(idp, node):
    """Jose accepts a valid token and rejects each kind of invalid one."""
    wrong = [
        idp.mint(audience=AUDIENCE, fault=fault)
        for fault in ("bad-signature", "foreign-kid", "expired", "wrong-audience")
    ]
    right = idp.mint(audience=AUDIENCE)

    answer, _ = node("verify", f"{idp.url}/.well-known/jwks", idp.issuer, AUDIENCE, right, *wrong)

    assert answer == [
        "octo-org/hello-agent",
        "ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
        "ERR_JWKS_NO_MATCHING_KEY",
        "ERR_JWT_EXPIRED",
        "ERR_JWT_CLAIM_VALIDATION_FAILED",
    ]


def test_openid_client_discovers_the_issuer(idp, node):
    """The client openid-client accepts the mock's document, and rejects one with a wrong issuer."""
    assert node("discover", idp.issuer)[0] == {"keys": f"{idp.issuer}/.well-known/jwks"}

    idp.plan_fault("discovery", fault="wrong-issuer")
    assert node("discover", idp.issuer)[0] == {"code": "OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED"}
