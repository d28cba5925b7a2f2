"""`mock-idp attack` against verifiers of both kinds: those that only read tokens, and those that verify them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs
from xml.etree import ElementTree as ET

import jwt
import pytest

import mock_idp

AUDIENCE = "https://id.example.com"
# A good library, used as its documentation shows, lets these through, deep-json where Python's parser does (3.13).
A_LIBRARY_LETS_THROUGH = {
    "ancient-iat", "audience-array", "deep-json", "duplicate-subject", "embedded-jwk", "enc-header", "float-times", "jku-header",
    "missing-exp", "missing-iat", "missing-jti", "missing-nbf", "missing-repository-id", "missing-subject", "padded",
    "recycled-name", "replay", "text-times", "too-old", "wrong-type", "zip-header",
}  # fmt: skip


@pytest.fixture
def serve_verifier():
    """Serve a verifier: a function from token to status; gives its URL."""
    servers = []

    def start(judge):
        class Handler(BaseHTTPRequestHandler):
            def answer(self, token):
                self.send_response(judge(token))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self):
                self.answer(self.headers.get("Authorization", "").removeprefix("Bearer "))

            def do_POST(self):
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                is_json = self.headers["Content-Type"] == "application/json"
                body = (
                    json.loads(text)
                    if is_json
                    else {name: values[0] for name, values in parse_qs(text).items()}
                )
                self.answer(body["token"] if body.get("extra") == "1" else "")

            def log_message(self, *_words):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/exchange"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _lenient(token):
    """Reads the claims and believes them."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return 400
    return 200 if claims.get("repository") == "octo-org/hello-agent" else 403


def _verifying(idp):
    """PyJWT as its documentation shows it, and a policy of one repository and one branch."""
    keys = jwt.PyJWKSet.from_dict(idp.state.ring.key_set())

    def judge(token):
        try:
            key = keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(token, key, ["RS256"], audience=AUDIENCE, issuer=idp.issuer)
        except (jwt.PyJWTError, KeyError, ValueError, RecursionError):
            return 401
        wanted = {"repository": "octo-org/hello-agent", "ref": "refs/heads/main", "event_name": "push"}
        return 200 if wanted.items() <= claims.items() else 403

    return judge


@pytest.mark.parametrize("send", ["bearer", "json:token", "form:token"])
def test_a_verifier_that_believes_what_it_reads_fails(command, idp, serve_verifier, send, tmp_path):
    """Exit 1; every forged signature is in the list, whichever way the token travels."""
    members = [] if send == "bearer" else ["--member", "extra=1"]
    report = tmp_path / "report.json"

    code, out, err = command(
        "attack", serve_verifier(_lenient), "--url", idp.url, "--send", send, *members, "--json", report
    )

    assert (code, err) == (1, "")
    wrong = {it["name"] for it in json.loads(report.read_text())["results"] if not it["asExpected"]}
    assert {"alg-none", "bad-signature", "hs256-with-public-key", "own-jwk", "expired", "replay"} <= wrong
    assert f"WRONG {'alg-none':<23}" in out
    assert not wrong & {"namesake", "control", "control-again"}


def test_a_good_library_alone_is_not_enough(command, idp, serve_verifier, tmp_path):
    """What it lets through is told in the manual, and is no forged signature."""
    report = tmp_path / "report.json"
    words = ["--send", "bearer", "--audience", AUDIENCE, "--json", report]

    code, _, err = command("attack", serve_verifier(_verifying(idp)), "--url", idp.url, *words)

    assert (code, err) == (1, "")
    results = json.loads(report.read_text())["results"]
    wrong = {it["name"] for it in results if not it["asExpected"]}
    assert {"replay", "recycled-name", "missing-exp"} <= wrong <= A_LIBRARY_LETS_THROUGH
    assert {it["name"] for it in results if it["verdict"] == "unsendable"} == {"line-break"}
    manual = (Path(mock_idp.__file__).parent / "README.md").read_text("utf-8")
    section = manual.partition("### What a JWT library alone lets through")[2].partition("##")[0]
    assert [name for name in A_LIBRARY_LETS_THROUGH if f"`{name}`" not in section] == []


def test_a_clean_run_is_silent_on_stderr_and_ends_with_success(command, idp, serve_verifier, tmp_path):
    """Exit 0, a table on stdout, a report for CI."""
    junit = tmp_path / "report.xml"
    skipped = [word for name in A_LIBRARY_LETS_THROUGH for word in ("--skip", name)]
    words = ["--send", "bearer", "--audience", AUDIENCE, "--junit", junit, *skipped]

    code, out, err = command("attack", serve_verifier(_verifying(idp)), "--url", idp.url, *words)

    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"ok    {'control':<23}  accepted   200  a right token"
    suite = ET.parse(junit).getroot()
    assert (suite.get("failures"), len(suite)) == ("0", int(suite.get("tests")))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["http://192.0.2.1/", "--send", "bearer"], "say so with --i-own-this-host"),
        (["http://localhost.example.com/", "--send", "bearer"], "is not on this machine"),
        (["ftp://127.0.0.1/", "--send", "bearer"], "must be an http(s) URL"),
        (["http://127.0.0.1:1/", "--send", "cookie"], "bearer, json:FIELD or form:FIELD"),
        (["http://127.0.0.1:1/", "--send", "json:"], "bearer, json:FIELD or form:FIELD"),
        (["http://127.0.0.1:1/", "--send", "bearer", "--member", "a=b"], "--member needs a body"),
        (["http://127.0.0.1:1/", "--send", "bearer", "--id-token", "none"], "such a job has no token"),
        (["http://127.0.0.1:1/", "--send", "bearer", "--skip", "fly"], "no attack is called 'fly'"),
        (["http://127.0.0.1:1/", "--send", "bearer", "--repository", "x"], "--repository must be OWNER/REPO"),
        (["http://127.0.0.1:1/", "--send", "bearer", "--json", "/no/such/folder/r"], "/no/such/folder/r"),
        (["http://127.0.0.1:1/", "--send", "bearer"], "does not accept a right token"),
    ],
)
def test_wrong_usage_and_a_refused_control_are_one_line(command, idp, words, message):
    """Exit 2, what to do, and no attack."""
    code, out, err = command("attack", *words, "--url", idp.url)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_host_of_ones_own_may_be_attacked(command, idp):
    """With the flag, the run gets as far as asking it."""
    words = ["--send", "bearer", "--timeout", "0.1", "--i-own-this-host"]

    code, _, err = command("attack", "http://192.0.2.1/", "--url", idp.url, *words)

    assert code == 2
    assert "http://192.0.2.1/ does not accept a right token" in err


def test_without_a_mock_there_is_nothing_to_mint(command):
    """The verifier is left alone."""
    code, _, err = command("attack", "http://127.0.0.1:1/", "--send", "bearer", "--url", "http://127.0.0.1:1")

    assert code == 2
    assert "no mock-idp answers" in err
