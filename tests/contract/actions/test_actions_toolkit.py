"""Our code and `actions_toolkit` write the same to the runner and send the same to GitHub."""

import base64
import io
import json
import re
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import responses
from actions_toolkit import core
from actions_toolkit.oidc_utils import OidcClient

from sentryagent_actions.github_oidc import IdTokens, RequestEndpoint
from sentryagent_actions.network import Clock, Network, open_client
from sentryagent_actions.workflow import Workflow

REQUEST_URL = "https://run.example.com/232//idtoken/plan/job?api-version=2.0"
ISSUER = "https://token.actions.githubusercontent.com"
AUDIENCE = "https://idp.example.com"
DELIMITER = re.compile("ghadelimiter_[0-9a-f-]{36}")
EMPTY_PROPERTY = re.compile(r",(?:file|line|endLine|col|endColumn)=(?=[,:])")
HARD_TEXTS = ["plain", "100 % a:b,c", "two\nlines\r\n", "ünï → ✓", "::warning::x"]


@pytest.mark.parametrize("text", HARD_TEXTS)
@pytest.mark.parametrize("level", ["notice", "warning", "error"])
def test_annotations_are_written_alike(capsys, level, text):
    """Both write the same annotation, except for the toolkit's empty properties, which the runner ignores."""
    getattr(core, level)(text, title="a title: with, signs")
    stdout = io.StringIO()
    getattr(Workflow({}, stdout), level)("a title: with, signs", text)
    assert stdout.getvalue() == EMPTY_PROPERTY.sub("", capsys.readouterr().out)


@pytest.mark.parametrize("secret", ["eyJhbGciOi.eyJzdWIi.c2ln", "100%\nsecret"])
def test_masks_are_written_alike(capsys, secret):
    """Our first mask equals the toolkit's; we also mask the secret's encoded forms."""
    core.set_secret(secret)
    stdout = io.StringIO()
    Workflow({}, stdout).mask(secret)
    assert stdout.getvalue().startswith(capsys.readouterr().out)


@pytest.mark.parametrize("text", HARD_TEXTS)
@pytest.mark.parametrize(
    ("variable", "theirs"), [("GITHUB_OUTPUT", core.set_output), ("GITHUB_STATE", core.save_state)]
)
def test_files_are_written_alike(tmp_path, monkeypatch, variable, theirs, text):
    """Both write the same pairs to the file, except for the random delimiters, which differ for each pair."""
    file, other = tmp_path / "ours", tmp_path / "theirs"
    file.touch()
    other.touch()
    workflow = Workflow({variable: str(file)}, io.StringIO())
    {"GITHUB_OUTPUT": workflow.set_outputs, "GITHUB_STATE": workflow.save_state}[variable](
        {"a": text, "b": "c"}
    )
    monkeypatch.setenv(variable, str(other))
    theirs("a", text)
    theirs("b", "c")
    written, expected = (path.read_bytes().decode() for path in (file, other))
    assert DELIMITER.sub("D", written) == DELIMITER.sub("D", expected)
    assert len(set(DELIMITER.findall(written))) == 2


def id_token():
    """Return an ID token for the audience."""
    part = (
        base64.urlsafe_b64encode(json.dumps({"iss": ISSUER, "aud": AUDIENCE, "exp": 2_000_000_000}).encode())
        .decode()
        .rstrip("=")
    )
    return f"eyJhbGciOiJSUzI1NiJ9.{part}.c2lnbmF0dXJl"


@responses.activate
def test_id_token_is_asked_for_alike(monkeypatch):
    """Both send the same request to GitHub and read the token from the same response."""
    token = id_token()
    body = {"count": len(token), "value": token}
    responses.get(REQUEST_URL.partition("?")[0], json=body)
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", REQUEST_URL)
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-token")
    assert OidcClient.get_id_token(AUDIENCE) == token
    theirs = responses.calls[0].request

    ours = []
    transport = httpx.MockTransport(lambda request: ours.append(request) or httpx.Response(200, json=body))
    clock = Clock(lambda: 1_800_000_000.0, lambda: 0.0, lambda _: None, lambda: 0.5)
    ignore = [].append
    network = Network(open_client(transport=transport, ca_certificate=""), clock, 60, ignore, ignore)
    endpoint = RequestEndpoint(REQUEST_URL, "request-token")
    assert IdTokens(endpoint, network, AUDIENCE, ignore, ignore).fresh() == token

    (request,) = ours
    assert request.method == theirs.method == "GET"
    assert request.headers["Authorization"] == theirs.headers["Authorization"]
    our_url, their_url = urlsplit(str(request.url)), urlsplit(theirs.url)
    assert our_url._replace(query="") == their_url._replace(query="")
    assert parse_qs(our_url.query) == parse_qs(their_url.query)
