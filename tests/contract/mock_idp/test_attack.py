"""`mock-idp attack` against verifiers that only read tokens, and against those that verify them."""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs
from xml.etree import ElementTree as ET

import httpx
import jwt
import pytest

import mock_idp
from mock_idp.job import Job

AUDIENCE = "https://id.example.com"
REPOSITORY, MAIN = "octo-org/hello-agent", "refs/heads/main"
POLICY = {"repository": REPOSITORY, "ref": MAIN, "event_name": "push"}
# The attacks that do not need GitHub's key and that a good library, used as documented, accepts.
A_LIBRARY_LETS_THROUGH = {"replay", "padded", "recycled-name", "recycled-name-in-other-sub-form"}


NODE_SERVER = """
import { createServer } from 'node:http'
const server = createServer((_request, response) => response.end())
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}/`))
"""


@pytest.fixture
def serve_verifier():
    """Serve a verifier and return its URL; a verifier maps a token to a status, or to the JSON of a 200."""
    servers = []

    def start(judge, *, token_alone=False):
        class Handler(BaseHTTPRequestHandler):
            def answer(self, token):
                judged = judge(token)
                body = json.dumps(judged).encode() if isinstance(judged, dict) else b""
                self.send_response(200 if body else judged)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

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
                self.answer(body["token"] if token_alone or body.get("extra") == "1" else "")

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
    """A verifier that trusts the claims without verifying the token."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return 400
    return 200 if claims.get("repository") == "octo-org/hello-agent" else 403


def _by_policy(policy):
    return lambda claims: policy.items() <= claims.items()


def _library(idp, allows=None, leeway=0, keys=None):
    """A verifier with PyJWT, used as documented, and a rule for the claims."""
    held = jwt.PyJWKSet.from_dict(idp.state.ring.key_set())

    def judge(token):
        now_held = keys() if keys else held
        try:
            key = now_held[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(token, key, ["RS256"], audience=AUDIENCE, issuer=idp.issuer, leeway=leeway)
        except (jwt.PyJWTError, KeyError, ValueError, RecursionError):
            return 401
        return 200 if (allows or _by_policy(POLICY))(claims) else 403

    return judge


def _with_ids(allows):
    """The rule that the manual recommends: compare ids instead of names, and accept each token once."""
    right = Job()
    ids = {"repository_id": right.repository_id, "repository_owner_id": right.repository_owner_id}
    used = set()

    def allows_once(claims):
        if not (ids.items() <= claims.items() and allows(claims)) or claims.get("jti") in {None, *used}:
            return False
        used.add(claims["jti"])
        return True

    return allows_once


def _careful(idp, policy=None, **how):
    """A verifier with that rule, which accepts no token that others than GitHub can create."""
    rule = _with_ids(_by_policy({"ref": MAIN, "event_name": "push"} if policy is None else policy))
    judge = _library(idp, rule, **how)
    return lambda token: 400 if re.search("[^\\w.-]", token) else judge(token)


@pytest.fixture
def attack(command, idp, serve_verifier, tmp_path):
    """Attack a verifier; return the exit code and the results by name."""

    def attack(judge, *words):
        report = tmp_path / "report.json"
        options = ["--url", idp.url, "--send", "bearer", "--audience", AUDIENCE, "--json", report]
        code, _, err = command("attack", serve_verifier(judge), *options, *words)
        assert err == ""
        return code, {row["name"]: row for row in json.loads(report.read_text())["results"]}

    return attack


def _wrong(rows, who=None):
    return {
        name
        for name, row in rows.items()
        if not row["asExpected"] and row["who"] != "GitHub only" and who in {None, row["who"]}
    }


@pytest.mark.parametrize("send", ["bearer", "json:token", "form:token"])
def test_a_verifier_that_believes_what_it_reads_fails(command, idp, serve_verifier, send, tmp_path):
    """The exit code is 1 and the report has every forged signature, however the token is sent."""
    members = [] if send == "bearer" else ["--member", "extra=1"]
    report = tmp_path / "report.json"

    code, out, err = command(
        "attack", serve_verifier(_lenient), "--url", idp.url, "--send", send, *members, "--json", report
    )

    assert (code, err) == (1, "")
    wrong = {it["name"] for it in json.loads(report.read_text())["results"] if not it["asExpected"]}
    assert {"alg-none", "bad-signature", "hs256-with-public-key", "own-jwk", "expired", "replay"} <= wrong
    assert re.search("^WRONG alg-none +anyone +high +accepted +200", out, re.MULTILINE)
    assert not wrong & {"namesake", "control", "control-again"}


def test_a_good_library_alone_is_not_enough(attack, idp):
    """A good library alone accepts replays, other spellings and a recycled name, but no forged signature."""
    code, rows = attack(_library(idp))

    assert code == 1
    assert _wrong(rows) == A_LIBRARY_LETS_THROUGH
    assert {name for name, row in rows.items() if row["verdict"] == "unsendable"} == {"line-break"}


def test_a_careful_verifier_passes(attack, idp):
    """The exit code is 0 even if the verifier accepts tokens that only GitHub could sign."""
    code, rows = attack(_careful(idp))

    assert code == 0
    assert _wrong(rows) == set()
    weak = {name for name, row in rows.items() if row["mark"] == "weak"}
    assert {
        "missing-repository",
        "duplicate-member",
        "repository-array",
        "repository-homoglyph",
        "float-times",
    } <= weak
    assert {rows[name]["who"] for name in weak} == {"GitHub only"}


def test_strict_counts_what_github_alone_can_make(attack, idp):
    """With `--strict`, tokens that only GitHub could sign count as failures too."""
    code, rows = attack(_careful(idp), "--strict")

    assert code == 1
    assert rows["float-times"]["mark"] == "wrong"


def test_a_baseline_lets_known_failures_pass_and_new_ones_fail(attack, idp, tmp_path):
    """With a baseline, known failures pass and new ones fail."""
    file = tmp_path / "attack-baseline.txt"
    words = ["--baseline", file]

    assert attack(_library(idp), "--write-baseline", file)[0] == 0
    names = file.read_text().splitlines()
    assert set(names) >= A_LIBRARY_LETS_THROUGH
    assert names == sorted(names)
    file.write_text(
        "# known, see ticket 4711\n\n" + file.read_text().replace("padded", "padded  # harmless here")
    )
    code, rows = attack(_library(idp), *words)
    assert (code, rows["replay"]["mark"], rows["replay"]["asExpected"]) == (0, "known", False)

    code, rows = attack(_library(idp, leeway=1800), *words)
    assert (code, rows["leeway-of-expiry"]["mark"]) == (1, "wrong")


@pytest.mark.parametrize(
    ("leeway", "note", "good"),
    [
        (0, "accepts 0 s, refuses 1 s", True),
        (45, "accepts 30 s, refuses 60 s", True),
        (130, "accepts 120 s, refuses 150 s", True),
        (1850, "accepts 1800 s, refuses 3600 s", False),
    ],
)
def test_the_leeway_is_found_out(attack, idp, leeway, note, good):
    """The attack finds a verifier's leeway; half an hour is a failure, because a leaked token stays valid for that long."""
    words = [
        word for name in ("expiry", "not-before", "issued-at") for word in ("--only", f"leeway-of-{name}")
    ]

    code, rows = attack(_careful(idp, leeway=leeway), *words)

    assert code == (0 if good else 1)
    for name in words[1::2]:
        assert (rows[name]["note"], rows[name]["asExpected"]) == (note, good), name


def _fetched(idp):
    return jwt.PyJWKSet.from_dict(
        httpx.get(f"{idp.url}/.well-known/jwks", trust_env=False).raise_for_status().json()
    )


def test_a_verifier_that_fetches_keys_for_each_token_is_found_out(attack, idp, tmp_path):
    """A verifier that fetches keys for each token fails, because forged tokens can overload it and GitHub."""
    code, rows = attack(_careful(idp, keys=lambda: _fetched(idp)), "--only", "fetch-for-each-token")

    assert (code, rows["fetch-for-each-token"]["note"]) == (1, "10 tokens, 10 requests for keys")
    assert json.loads((tmp_path / "report.json").read_text())["keyRequests"] == 12


def _fetches_for_unknown_kids(idp):
    keys = [_fetched(idp)]
    judge = _careful(idp, keys=lambda: keys[0])

    def judged(token):
        kid = jwt.get_unverified_header(token).get("kid")
        if kid not in {key.key_id for key in keys[0].keys}:
            keys[0] = _fetched(idp)
        return judge(token)

    return judged


def test_a_verifier_that_fetches_keys_for_each_made_up_kid_is_found_out(attack, idp):
    """A verifier that fetches keys for each unknown kid, but not for known ones, fails that attack only."""
    words = ["--only", "fetch-for-each-token", "--only", "fetch-for-each-unknown-kid"]

    code, rows = attack(_fetches_for_unknown_kids(idp), *words)

    assert code == 1
    assert rows["fetch-for-each-unknown-kid"]["note"] == "10 tokens, 10 requests for keys"
    assert rows["fetch-for-each-token"]["note"] == "10 tokens, 0 requests for keys"


@pytest.mark.parametrize(
    ("errors", "open_rows"),
    [
        (httpx.HTTPStatusError, {"keys-answer-503"}),
        (httpx.TransportError, {"keys-reset"}),
        (json.JSONDecodeError, {"keys-garbage"}),
        (jwt.PyJWKSetError, {"keys-empty"}),
        ((), set()),
    ],
)
def test_a_verifier_that_opens_when_keys_cannot_be_had_is_found_out(attack, idp, errors, open_rows):
    """A verifier that accepts tokens when keys are unavailable fails; a crash (500) does not count as acceptance."""

    def judge(token):
        try:
            return _library(idp, keys=lambda: _fetched(idp))(token)
        except errors:
            return 200
        except (httpx.HTTPError, jwt.PyJWTError, ValueError):
            return 500

    names = ("keys-answer-503", "keys-reset", "keys-garbage", "keys-empty")
    code, rows = attack(judge, *(word for name in names for word in ("--only", name)))

    assert (code, _wrong(rows)) == (1 if open_rows else 0, open_rows)
    assert all(rows[name]["note"] == "requested keys 1 times" for name in names)
    assert idp.state.pending_faults() == []


@pytest.mark.parametrize(
    ("allows", "let_in"),
    [
        (lambda claims: "/deploy.yml@" in claims["job_workflow_ref"], {"workflow-of-another-repository", "workflow-on-another-ref"}),
        (lambda claims: claims["workflow_ref"].split("@")[0].endswith("deploy.yml"), {"look-alike-workflow"}),
        (lambda claims: claims["job_workflow_ref"].startswith(f"{REPOSITORY}/.github/workflows/deploy.yml@"), {"workflow-on-another-ref"}),
        (lambda claims: claims["job_workflow_ref"] == f"{REPOSITORY}/.github/workflows/deploy.yml@{MAIN}", set()),
        (lambda claims: claims["workflow_ref"] == f"{REPOSITORY}/.github/workflows/deploy.yml@{MAIN}", set()),
        (lambda _claims: True, {"other-workflow", "look-alike-workflow", "workflow-of-another-repository", "workflow-on-another-ref"}),
    ],
)  # fmt: skip
def test_a_rule_about_a_part_of_the_workflow_is_found_out(attack, idp, allows, let_in):
    """If the job names a workflow, rules that check only a part of it fail."""
    rule = _with_ids(
        lambda claims: _by_policy({"ref": MAIN, "event_name": "push"})(claims) and allows(claims)
    )
    names = (
        "other-workflow",
        "look-alike-workflow",
        "workflow-of-another-repository",
        "workflow-on-another-ref",
    )

    only = [word for name in names for word in ("--only", name)]
    code, rows = attack(_library(idp, rule), "--workflow", "deploy.yml", *only)

    assert (code, _wrong(rows)) == (1 if let_in else 0, let_in)


@pytest.mark.parametrize(
    ("policy", "bound", "words"),
    [
        ({"event_name": "push"}, "repository,event", []),
        ({"ref": MAIN}, "repository,ref", []),
        ({"environment": "production"}, "repository, environment", ["--environment", "production"]),
    ],
)
def test_a_policy_is_only_held_to_what_it_compares(attack, idp, policy, bound, words):
    """With `--policy`, a verifier is only attacked on the claims that it checks."""
    assert attack(_careful(idp, policy), *words, "--policy", bound)[0] == 0
    assert attack(_careful(idp, policy), *words)[0] == 1


@pytest.mark.parametrize("member", ["active=true", "result=welcome", "data.state=1"])
def test_an_introspection_endpoint_answers_200_to_all(command, idp, serve_verifier, member):
    """With `--accepted-when`, a field of the body decides, because introspection always responds with 200 (RFC 7662)."""
    bodies = {
        200: {"active": True, "result": "welcome", "data": {"state": 1}},
        403: {"active": False, "result": "no", "data": {"state": 0}},
    }
    judge = _careful(idp)
    url = serve_verifier(lambda token: bodies[200 if judge(token) == 200 else 403])
    words = ["--url", idp.url, "--send", "bearer", "--audience", AUDIENCE]

    code, out, err = command("attack", url, *words, "--accepted-when", member)

    assert (code, err) == (0, "")
    assert re.search("^ok +control +- +high +accepted +200", out, re.MULTILINE)
    assert re.search("^ok +alg-none +anyone +high +refused +200", out, re.MULTILINE)
    assert command("attack", url, *words)[0] == 1


def test_a_clean_run_is_silent_on_stderr_and_ends_with_success(command, idp, serve_verifier, tmp_path):
    """A clean run exits with 0, prints a table on stdout and writes the CI reports."""
    junit, sarif = tmp_path / "report.xml", tmp_path / "report.sarif"
    words = ["--send", "bearer", "--audience", AUDIENCE, "--junit", junit, "--sarif", sarif]

    code, out, err = command("attack", serve_verifier(_careful(idp)), "--url", idp.url, *words)

    assert (code, err) == (0, "")
    assert re.match("ok +control +- +high +accepted +200  a valid token", out)
    suite = ET.parse(junit).getroot()
    assert (suite.get("failures"), len(suite)) == ("0", int(suite.get("tests")))
    [run] = json.loads(sarif.read_text())["runs"]
    assert {result["level"] for result in run["results"]} == {"note"}
    assert re.fullmatch(r"[0-9].*", run["tool"]["driver"]["version"])


def test_the_command_of_the_manual_runs_as_it_stands(idp, serve_verifier, tmp_path):
    """The manual's command works unchanged, with the two URLs in variables."""
    manual = (Path(mock_idp.__file__).parent / "README.md").read_text("utf-8")
    block = re.search(r"## Attack a verifier\n\n```sh\n(.*?)```", manual, re.DOTALL)[1]
    judge = _careful(idp)
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MOCK_IDP_URL": idp.url,
        "VERIFIER_URL": serve_verifier(judge, token_alone=True),
    }

    done = subprocess.run(
        ["sh", "-c", block], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert ET.parse(tmp_path / "attacks.xml").getroot().get("failures") == "0"


def test_the_list_needs_no_verifier_and_no_mock(command):
    """`--list` shows the attacks for the job and policy in the options, without a verifier or a mock."""
    code, out, err = command("attack", "--list", "--url", "http://127.0.0.1:1")

    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert len(rows) > 120
    assert re.match("alg-none +anyone +high +unsigned", rows["alg-none"])
    assert not {"control", "no-environment", "other-workflow"} & set(rows)
    _, out, _ = command("attack", "--list", "--environment", "production", "--policy", "environment")
    assert re.search("^no-environment ", out, re.MULTILINE)
    assert not re.search("^other-branch ", out, re.MULTILINE)


@pytest.mark.node
def test_a_header_that_node_finds_too_long_is_refused_and_not_broken(command, idp, tmp_path):
    """A 431 counts as a refusal, even though Node.js closes the connection while we are still sending."""
    program = tmp_path / "server.mjs"
    program.write_text(NODE_SERVER)
    with subprocess.Popen(["node", program], stdout=subprocess.PIPE, text=True) as node:
        try:
            report = tmp_path / "report.json"
            words = [
                "--url",
                idp.url,
                "--send",
                "bearer",
                "--only",
                "oversize",
                "--only",
                "deep-json",
                "--json",
                report,
            ]
            code, _, err = command("attack", node.stdout.readline().strip(), *words)
        finally:
            node.terminate()

    assert (code, err) == (0, "")
    rows = {row["name"]: row for row in json.loads(report.read_text())["results"]}
    assert (rows["oversize"]["verdict"], rows["oversize"]["status"]) == ("refused", 431)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["http://192.0.2.1/", "--send", "bearer"], "confirm it with --i-own-this-host"),
        (["http://localhost.example.com/", "--send", "bearer"], "is not on this machine"),
        (["ftp://127.0.0.1/", "--send", "bearer"], "must be an http(s) URL"),
        (
            ["http://127.0.0.1:1/", "--send", "cookie"],
            "bearer, json:FIELD, form:FIELD, query:FIELD or header:NAME",
        ),
        (["http://127.0.0.1:1/", "--send", "json:"], "bearer, json:FIELD, form:FIELD"),
        (["http://127.0.0.1:1/", "--send", "json:a..b"], "bearer, json:FIELD, form:FIELD"),
        (["http://127.0.0.1:1/"], "--send is missing"),
        (["--send", "bearer"], "URL is missing"),
        (["http://127.0.0.1:1/", "--send", "bearer", "--member", "a=b"], "--member needs a body"),
        (["http://127.0.0.1:1/", "--send", "header:X-Token", "--member", "a=b"], "--member needs a body"),
        (["http://127.0.0.1:1/", "--send", "bearer", "--id-token", "none"], "such a job gets no token"),
        (["http://127.0.0.1:1/", "--send", "bearer", "--id-token", "fork"], "such a job gets no token"),
        (
            ["http://127.0.0.1:1/", "--send", "bearer", "--policy", "branch"],
            "'branch' is not one of repository, ref",
        ),
        (
            ["http://127.0.0.1:1/", "--send", "bearer", "--policy", "environment"],
            "requires --environment NAME",
        ),
        (
            ["http://127.0.0.1:1/", "--send", "bearer", "--accepted-when", "active"],
            "'active' must have the form FIELD=VALUE",
        ),
        (
            ["http://127.0.0.1:1/", "--send", "bearer", "--accepted-when", "=x"],
            "'=x' must have the form FIELD=VALUE",
        ),
        (
            ["http://127.0.0.1:1/", "--send", "bearer", "--baseline", "/no/such/file"],
            "create one with --write-baseline",
        ),
        (["http://127.0.0.1:1/", "--send", "bearer", "--sarif", "/no/such/folder/r"], "/no/such/folder/r"),
        (["http://127.0.0.1:1/", "--send", "bearer", "--skip", "fly"], "unknown attack 'fly'"),
        (["http://127.0.0.1:1/", "--send", "bearer", "--repository", "x"], "--repository must be OWNER/REPO"),
        (["http://127.0.0.1:1/", "--send", "bearer", "--json", "/no/such/folder/r"], "/no/such/folder/r"),
        (["http://127.0.0.1:1/", "--send", "bearer"], "Check the URL, and that the verifier is running"),
    ],
)
def test_wrong_usage_and_a_refused_control_are_one_line(command, idp, words, message):
    """Wrong usage or a refused control exits with 2 and one line with a remedy, without an attack."""
    code, out, err = command("attack", *words, "--url", idp.url)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_host_of_ones_own_may_be_attacked(command, idp):
    """With `--i-own-this-host`, another host may be attacked."""
    words = ["--send", "bearer", "--timeout", "0.1", "--i-own-this-host"]

    code, _, err = command("attack", "http://192.0.2.1/", "--url", idp.url, *words)

    assert code == 2
    assert "http://192.0.2.1/ does not accept a valid token" in err


def test_without_a_mock_there_is_nothing_to_mint(command):
    """Without a mock, the command fails and sends the verifier nothing."""
    code, _, err = command("attack", "http://127.0.0.1:1/", "--send", "bearer", "--url", "http://127.0.0.1:1")

    assert code == 2
    assert "no mock-idp answers" in err
