"""`mock-idp act`: in real runs of nektos/act without containers, the token agrees with act's variables."""

import base64
import json
import os
import re

import jwt
import pytest

from kit.processes import BIN, clean_environment, run

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

WORKFLOW = """name: {name}
on: [push, pull_request, pull_request_target, release, schedule, workflow_dispatch, deployment]
jobs:
  {job}:
    runs-on: ubuntu-latest
    permissions:
      id-token: write
    steps:
      - run: |
          echo "JOB $(env -0 | tr '\\n' ' ' | tr '\\0' '\\n' | grep ^GITHUB_ | base64 -w0)"
          echo "TOKEN $(curl -s -H "Authorization: bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=x")"
"""
# Claims, and the variables that must have the same values.
TWINS = {
    "repository": "GITHUB_REPOSITORY",
    "repository_id": "GITHUB_REPOSITORY_ID",
    "repository_owner": "GITHUB_REPOSITORY_OWNER",
    "repository_owner_id": "GITHUB_REPOSITORY_OWNER_ID",
    "ref": "GITHUB_REF",
    "ref_type": "GITHUB_REF_TYPE",
    "ref_protected": "GITHUB_REF_PROTECTED",
    "head_ref": "GITHUB_HEAD_REF",
    "base_ref": "GITHUB_BASE_REF",
    "sha": "GITHUB_SHA",
    "event_name": "GITHUB_EVENT_NAME",
    "workflow": "GITHUB_WORKFLOW",
    "workflow_ref": "GITHUB_WORKFLOW_REF",
    "workflow_sha": "GITHUB_WORKFLOW_SHA",
    "actor": "GITHUB_ACTOR",
    "actor_id": "GITHUB_ACTOR_ID",
    "run_id": "GITHUB_RUN_ID",
    "run_number": "GITHUB_RUN_NUMBER",
    "run_attempt": "GITHUB_RUN_ATTEMPT",
}
NODE_CLIENT = """
import * as core from '@actions/core'
const demanded = ['REPOSITORY', 'WORKFLOW', 'ACTION', 'ACTOR', 'SHA', 'WORKSPACE'].map(name => 'GITHUB_' + name)
for (const name of [...demanded, 'RUNNER_TEMP']) {
  if (!process.env[name]) throw new Error('no ' + name)
}
const aws = await core.getIDToken('sts.amazonaws.com')
const google = await core.getIDToken('https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p')
const cratesIo = await core.getIDToken('crates.io')
core.saveState('token', 'x')
core.setOutput('token', 'x')
const claims = [aws, google, cratesIo].map(token => JSON.parse(Buffer.from(token.split('.')[1], 'base64url')))
console.log('CLAIMS ' + JSON.stringify(claims))
"""


@pytest.fixture
def act(checkout, tmp_path):
    """Run `mock-idp act` in the checkout with these workflows; return exit code, log and stderr."""
    folder, git = checkout
    home = tmp_path / "home"
    (home / ".config" / "act").mkdir(parents=True)
    (home / ".config" / "act" / "actrc").write_text("-P ubuntu-latest=-self-hosted\n")
    workflows = folder / ".github" / "workflows"
    workflows.mkdir(parents=True)

    def act(*words, workflows_of=None, **environment):
        for name, text in (
            workflows_of or {"deploy.yml": WORKFLOW.format(name="Deploy it", job="build")}
        ).items():
            (workflows / name).write_text(text)
        git("add", ".")
        git("commit", "-q", "--allow-empty", "-m", "workflows")
        environ = clean_environment() | {"HOME": str(home), "XDG_CONFIG_HOME": ""} | environment
        done = run(BIN / "mock-idp", "act", *words, cwd=folder, env=environ, timeout=60)
        return done.returncode, done.stdout, done.stderr

    act.home, act.git, act.folder = home, git, folder
    return act


def _token_and_variables(log):

    lines = base64.b64decode(re.search(r"\| JOB (\S+)", log)[1]).decode().splitlines()
    token = json.loads(re.search(r"\| TOKEN (\{.*)", log)[1])["value"]
    return jwt.decode(token, options={"verify_signature": False}), dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize(
    ("words", "claims"),
    [
        (("--from-git", "--", "push"), {"repository": "acme/rocket", "ref": "refs/heads/trunk", "event_name": "push"}),
        (("--", "push"), {"repository": "octo-org/hello-agent", "ref": "refs/heads/main"}),
        (("--from-git", "--"), {"event_name": "push"}),
        (("--from-git", "--event", "release", "--ref", "refs/tags/v1", "--"), {"event_name": "release", "ref_type": "tag"}),
        (("--from-git", "--", "pull_request"), {"ref": "refs/pull/1/merge", "head_ref": "trunk", "base_ref": "main"}),
        (("--from-git", "--", "pull_request_target"), {"ref": "refs/heads/trunk", "event_name": "pull_request_target"}),
        (("--", "schedule"), {"event_name": "schedule"}),
        (("--", "workflow_dispatch", "-j", "build"), {"event_name": "workflow_dispatch"}),
        (("--", "push", "--actor", "mona"), {"actor": "mona"}),
        (("--actor", "dependabot[bot]", "--", "push"), {"actor": "dependabot[bot]"}),
        (("--run-attempt", "3", "--repository-id", "77", "--", "push"), {"run_attempt": "3", "repository_id": "77"}),
        (("--environment", "production", "--", "push"), {"environment": "production"}),
        (("--repository", "a/b", "--", "push", "-W", ".github/workflows/deploy.yml"), {"workflow": "Deploy it"}),
        # If a variable is set to another value, the token's value counts.
        (("--", "push", "--env", "GITHUB_REF=refs/heads/other"), {"ref": "refs/heads/main"}),
    ],
)  # fmt: skip
def test_the_token_and_acts_variables_say_the_same(act, words, claims):
    """With any options, the token's claims equal act's variables."""
    code, log, err = act(*words)

    assert code == 0, log + err
    token, variables = _token_and_variables(log)
    assert {name: variables.get(variable) for name, variable in TWINS.items()} == {
        name: token[name] for name in TWINS
    }
    assert token["sha"] == act.git("rev-parse", "HEAD")
    assert claims.items() <= token.items()


def test_a_workflow_without_a_name_is_called_as_act_calls_it(act):
    """A workflow without a name is called by its file name, as in act; GitHub uses its path."""
    unnamed = WORKFLOW.partition("\n")[2].format(job="build")

    code, log, _ = act("--", "push", workflows_of={"ci.yaml": unnamed})

    token, variables = _token_and_variables(log)
    assert (code, token["workflow"], variables["GITHUB_WORKFLOW"]) == (0, "ci.yaml", "ci.yaml")
    assert token["workflow_ref"] == "octo-org/hello-agent/.github/workflows/ci.yaml@refs/heads/main"


TWO = {"a.yml": WORKFLOW.format(name="A", job="one"), "b.yml": WORKFLOW.format(name="B", job="two")}


@pytest.mark.parametrize(
    ("words", "name"), [(("-j", "two"), "B"), (("-jone",), "A"), (("-W", ".github/workflows/b.yml"), "B")]
)
def test_one_of_several_workflows_is_chosen(act, words, name):
    """The workflow is the one that act's options select."""
    code, log, err = act("--", "push", *words, workflows_of=TWO)

    assert code == 0, log + err
    assert _token_and_variables(log)[0]["workflow"] == name


def test_acts_own_settings_count(act):
    """A workflow and an actor in act's settings file are respected."""
    settings = act.home / ".actrc"
    settings.write_text("# mine\n--workflows .github/workflows/b.yml\n-a mona\n")

    code, log, err = act("--", "push", workflows_of=TWO)

    assert code == 0, log + err
    token, variables = _token_and_variables(log)
    assert (token["workflow"], token["actor"], variables["GITHUB_ACTOR"]) == ("B", "mona", "mona")


def test_the_checkout_is_that_of_acts_folder(act, tmp_path):
    """With `act -C FOLDER`, the checkout is that folder instead of the current one."""
    settings = act.home / ".actrc"
    settings.write_text(f"-C {act.folder}\n")
    act("--", "--version")

    code, log, err = _outside(act, tmp_path, "--from-git", "--", "push")

    assert code == 0, log + err
    token, variables = _token_and_variables(log)
    assert token["repository"] == variables["GITHUB_REPOSITORY"] == "acme/rocket"
    assert token["sha"] == act.git("rev-parse", "HEAD")


def _outside(act, folder, *words):
    environ = clean_environment() | {"HOME": str(act.home), "XDG_CONFIG_HOME": ""}
    done = run(BIN / "mock-idp", "act", *words, cwd=folder, env=environ, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("deployment", {"deployment": {"sha": "d" * 40, "ref": "refs/heads/x"}}),
        ("push", {"ref": "refs/heads/x", "after": "d" * 40, "deleted": False}),
        ("pull_request_target", {"number": 7, "pull_request": {"base": {"sha": "d" * 40, "ref": "x"}}}),
    ],
)
def test_the_commit_follows_the_event_file(act, event, payload):
    """Act takes the commit of these events from the payload, whose path is relative to act's folder."""
    (act.folder / "event.json").write_text(json.dumps(payload))

    code, log, err = act("--ref", "x", "--", event, "-e", "event.json")

    assert code == 0, log + err
    token, variables = _token_and_variables(log)
    assert token["sha"] == variables["GITHUB_SHA"] == "d" * 40
    assert token["ref"] == variables["GITHUB_REF"]


def test_an_option_that_act_overrules_is_told(act):
    """If act overrules an option, the token follows act, and a message says so."""
    code, _, err = act("--sha", "a" * 40, "--", "push")

    assert code == 0
    assert f"mock-idp: --sha has no effect: act uses {act.git('rev-parse', 'HEAD')}\n" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--", "push"),
            "more than one workflow starts on push (a.yml, b.yml), but a token belongs to only one; choose",
        ),
        (("--", "-j", "three"), "no workflow has the job three; choose one with"),
        (("--", "watch"), "no workflow starts on watch; choose one with"),
        (("--event", "push", "--", "schedule"), "--event push differs from act's event schedule"),
    ],
)
def test_what_is_not_one_workflow_is_one_line(act, words, message):
    """If not exactly one workflow matches, the command exits with 2 and one line, without starting act."""
    code, out, err = act(*words, workflows_of=TWO)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_folder_without_a_commit_is_one_line(act):
    """A checkout without a commit is refused, because act could not set the commit."""
    act.git("checkout", "-q", "--orphan", "empty")
    (act.folder / ".github" / "workflows" / "deploy.yml").write_text(WORKFLOW.format(name="A", job="one"))

    done = run(BIN / "mock-idp", "act", "--", "push", cwd=act.folder, env=clean_environment())

    assert (done.returncode, done.stdout) == (2, "")
    assert "is not a git checkout with a commit" in done.stderr


@pytest.mark.parametrize("words", [("--version",), ("-l",), ("--list-options",)])
def test_a_question_to_act_needs_no_workflow(act, words):
    """Options such as `--list` are passed to act without needing a workflow."""
    assert act("--", *words)[0] == 0


def test_without_act_the_remedy_is_named(act, command, monkeypatch):
    """Without act on PATH, a one-line message says where to get it."""
    monkeypatch.setattr("sys.executable", "/nowhere/python")

    code, _, err = command("act", "--", "push", PATH="/nowhere")

    assert (code, err) == (2, "mock-idp: act is not on PATH; see https://nektosact.com/installation\n")


@pytest.mark.node
def test_clients_of_the_well_known_auth_actions_get_tokens_that_fit(act, npm_packages):
    """The variables that AWS's, Google's and crates.io's actions read are set, and the toolkit gets their tokens."""
    program = npm_packages / "auth.mjs"
    program.write_text(NODE_CLIENT)
    workflow = f"on: push\njobs:\n  x:\n    runs-on: ubuntu-latest\n    steps:\n      - run: node {program}\n"

    code, log, err = act(
        "--from-git", "--", "push", workflows_of={"auth.yml": workflow}, PATH=os.environ["PATH"]
    )

    assert code == 0, log + err
    claims = json.loads(re.search(r"CLAIMS (\[.*)", log)[1])
    assert [it["aud"] for it in claims][::2] == ["sts.amazonaws.com", "crates.io"]
    assert {it["sub"] for it in claims} == {"repo:acme/rocket:ref:refs/heads/trunk"}
    assert len({it["jti"] for it in claims}) == 3
