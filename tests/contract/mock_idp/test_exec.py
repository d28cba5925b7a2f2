"""`mock-idp exec`, which runs any command as a job, `--from-git` and `serve --keys`."""

import json
import signal
import stat
import subprocess
import sys

import httpx
import pytest

from kit.processes import BIN, clean_environment
from mock_idp.cli import job_options
from mock_idp.client import MockClient, MockUnavailableError

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
# The variables that actions read, from their sources: configure-aws-credentials of aws-actions (assumeRole), auth of
# google-github-actions (main), crates-io-auth-action of rust-lang (main), and the toolkit that all three use.
AUTH_ACTIONS = {
    "aws": ("GITHUB_REPOSITORY", "GITHUB_WORKFLOW", "GITHUB_ACTION", "GITHUB_ACTOR", "GITHUB_SHA", "GITHUB_WORKSPACE"),
    "google": ("GITHUB_WORKSPACE", "RUNNER_TEMP", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    "crates.io": ("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    "toolkit": ("GITHUB_OUTPUT", "GITHUB_STATE", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY", "GITHUB_EVENT_PATH"),
}  # fmt: skip


def _mock_idp(*words, cwd=None, **environment):
    """Run `mock-idp` in a separate process; return exit code, stdout and stderr."""
    environ = clean_environment() | environment
    done = subprocess.run(
        [BIN / "mock-idp", *map(str, words)], cwd=cwd, env=environ, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def _shown(*words, cwd=None, **environment):
    """The environment of a command under `mock-idp exec`."""
    code, out, err = _mock_idp("exec", *words, "--", sys.executable, "-c", SHOW, cwd=cwd, **environment)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_command_runs_as_a_job_with_a_mock_of_its_own(tmp_path):
    """The command sees its own job's variables, with the current folder as workspace, and none of another job."""
    seen = _shown(
        "--repository", "acme/rocket", cwd=tmp_path, GITHUB_RUN_ID="1", RUNNER_NAME="mine", MINE="1"
    )

    assert (seen["GITHUB_REPOSITORY"], seen["GITHUB_WORKSPACE"], seen["MINE"]) == (
        "acme/rocket",
        str(tmp_path),
        "1",
    )
    assert (seen["GITHUB_RUN_ID"] != "1", seen["RUNNER_NAME"], seen["CI"]) == (True, "mock-idp", "true")
    assert seen["ACTIONS_ID_TOKEN_REQUEST_URL"].startswith(seen["MOCK_IDP_URL"])
    with pytest.raises(httpx.ConnectError):
        httpx.get(seen["MOCK_IDP_URL"])


@pytest.mark.parametrize("action", AUTH_ACTIONS)
def test_the_well_known_actions_find_what_they_read(action):
    """Every variable that well-known actions read is set; an empty one would make them wait or fail."""
    seen = _shown()

    assert [name for name in AUTH_ACTIONS[action] if not seen.get(name)] == []


def test_the_files_of_a_step_are_there(tmp_path):
    """`GITHUB_OUTPUT` and similar variables name empty files, `GITHUB_EVENT_PATH` the payload."""
    program = (
        "import json, os\n"
        "names = ['OUTPUT', 'ENV', 'PATH', 'STATE', 'STEP_SUMMARY']\n"
        "print([open(os.environ['GITHUB_' + name]).read() for name in names])\n"
        "print(json.load(open(os.environ['GITHUB_EVENT_PATH']))['repository']['full_name'])\n"
    )
    code, out, _ = _mock_idp("exec", "--repository", "acme/rocket", "--", sys.executable, "-c", program)

    assert (code, out) == (0, "['', '', '', '', '']\nacme/rocket\n")


def test_the_named_mock_is_asked_and_the_job_ends_with_the_command(idp):
    """`--url` or MOCK_IDP_URL names the mock, whose log has the job's token; the job ends with the command."""
    program = (
        "import os, urllib.request as r; url = os.environ['ACTIONS_ID_TOKEN_REQUEST_URL'] + '&audience=x'; "
        "r.urlopen(r.Request(url, headers={'Authorization': 'bearer ' + os.environ['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}))"
    )
    words = ("--environment", "production", "--", sys.executable, "-c", program)

    assert _mock_idp("exec", "--url", idp.url, *words)[0] == 0
    assert _mock_idp("exec", *words, MOCK_IDP_URL=idp.url)[0] == 0
    idp.minted(environment="production", audience="x").times(2)
    assert idp.state.jobs() == []


@pytest.mark.parametrize("ci", ["false", ""])
def test_ci_and_the_users_token_stay_the_users(ci):
    """The user's CI and GITHUB_TOKEN are kept; CI is set only if it is not set yet."""
    seen = _shown(CI=ci, GITHUB_TOKEN="mine")

    assert (seen["CI"], seen["GITHUB_TOKEN"]) == (ci, "mine")


def test_a_file_that_is_not_executable_is_told_as_a_shell_does(tmp_path):
    """As in a shell, the exit code for a file that is not executable is 126."""
    script = tmp_path / "deploy.sh"
    script.touch(mode=0o600)

    assert _mock_idp("exec", "--", script) == (
        126,
        "",
        f"mock-idp: cannot start {script}: Permission denied\n",
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [(("sh", "-c", "exit 3"), 3), (("sh", "-c", "kill -9 $$"), 137), (("no-such-program",), 127)],
)
def test_the_exit_code_is_the_commands(command, code):
    """The exit code is the command's, as in a shell."""
    ended, out, err = _mock_idp("exec", "--", *command)

    assert (ended, out) == (code, "")
    assert err == (
        "mock-idp: cannot start no-such-program: No such file or directory\n" if code == 127 else ""
    )


def test_sigterm_ends_the_command_too():
    """SIGTERM ends the command too."""
    program = "import signal; print('waiting', flush=True); signal.pause()"
    words = [BIN / "mock-idp", "exec", "--", sys.executable, "-c", program]
    with subprocess.Popen(words, env=clean_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM


def test_a_job_from_git_is_that_of_the_checkout(checkout):
    """`--from-git` takes repository, branch and commit from the checkout; options override them."""
    folder, git = checkout

    seen = _shown("--from-git", cwd=folder)
    given = _shown("--from-git", "--repository", "a/b", "--ref", "topic", "--sha", "b" * 40, cwd=folder)
    printed = json.loads(
        _mock_idp(
            "exec",
            "--",
            BIN / "mock-idp",
            "env",
            "--from-git",
            "--format",
            "json",
            cwd=folder,
            TMPDIR=str(folder.parent),
        )[1]
    )

    expected = ("acme/rocket", "refs/heads/trunk", git("rev-parse", "HEAD"))
    names = ("GITHUB_REPOSITORY", "GITHUB_REF", "GITHUB_SHA")
    assert tuple(seen[name] for name in names) == expected == tuple(printed[name] for name in names)
    assert tuple(given[name] for name in names) == ("a/b", "refs/heads/topic", "b" * 40)


@pytest.mark.parametrize(
    ("url", "repository"),
    [
        ("git@github.com:acme/rocket.git", "acme/rocket"),
        ("github.com:acme/rocket", "acme/rocket"),
        ("ssh://git@ghes.example.com:22/acme/rocket.git", "acme/rocket"),
        ("https://github.com/acme/rocket/", "acme/rocket"),
        ("git+ssh://git@github.com/acme/rocket.git", "acme/rocket"),
        ("git@github.com:/acme/rocket.git", "acme/rocket"),
        ("https://github.com/acme/rocket.js.git", "acme/rocket.js"),
    ],
)
def test_every_form_of_a_remote_is_understood(checkout, url, repository):
    """Remotes are parsed with and without `.git`, over https and ssh, even if the only remote is not called origin."""
    folder, git = checkout
    git("remote", "set-url", "origin", url)
    git("remote", "rename", "origin", "github")

    assert _shown("--from-git", cwd=folder)["GITHUB_REPOSITORY"] == repository


def test_a_detached_head_is_the_tag_that_it_has(checkout):
    """On a detached HEAD, the ref is the commit's tag, as in a workflow on a tag."""
    folder, git = checkout
    git("tag", "v1.2")
    git("checkout", "-q", "--detach")

    assert _shown("--from-git", cwd=folder)["GITHUB_REF"] == "refs/tags/v1.2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("remote", "remove", "origin"),
            "the git remote origin of {folder} does not exist; give --repository",
        ),
        (
            ("remote", "set-url", "origin", "C:/acme/rocket.git"),
            "the git remote origin of {folder} has no URL of the form HOST/OWNER/REPO; give --repository",
        ),
        (
            ("remote", "set-url", "origin", "/srv/git/rocket.git"),
            "the git remote origin of {folder} has no URL of the form HOST/OWNER/REPO; give --repository",
        ),
        (
            ("remote", "set-url", "origin", "https://u:secret@gitlab.com/a/b/c.git"),
            "the git remote origin of {folder} has no URL of the form HOST/OWNER/REPO; give --repository",
        ),
        (("checkout", "-q", "--detach"), "the checkout in {folder} is not on a branch or tag; give --ref"),
        (
            ("checkout", "-q", "--orphan", "empty"),
            "{folder} is not a git checkout with a commit; give --sha and the other values as options",
        ),
    ],
)
def test_a_checkout_that_does_not_tell_is_one_line(checkout, words, message):
    """If the checkout lacks information, the error names the missing option, but not the URL, which may have a password."""
    folder, git = checkout
    git(*words)

    code, out, err = _mock_idp("exec", "--from-git", "--", "true", cwd=folder)

    assert (code, out, err) == (2, "", f"mock-idp: {message.format(folder=folder)}\n")


def test_a_folder_without_git_is_one_line(tmp_path):
    """`--from-git` in a folder without git exits with 2 and one line."""
    code, out, err = _mock_idp("exec", "--from-git", "--", "true", cwd=tmp_path)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is not a git checkout" in err


def test_a_mock_that_is_starting_is_waited_for(monkeypatch):
    """A refused or reset connection is retried, because the mock may be starting; other errors are not."""
    monkeypatch.setattr(job_options, "_PAUSE_SECONDS", 0)
    answers = [ConnectionRefusedError(), ConnectionResetError(), {"jobId": "1"}]

    def ask():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise MockUnavailableError("not yet") from answer
        return answer

    assert job_options._when_started(ask) == {"jobId": "1"}
    answers.append(TimeoutError())
    with pytest.raises(MockUnavailableError):
        job_options._when_started(ask)


@pytest.fixture
def served(tmp_path):
    """Start `mock-idp serve`; return its URL (or its error) and its process."""
    started = []

    def serve(*words):
        process = subprocess.Popen(
            [BIN / "mock-idp", "serve", "--port", "0", *map(str, words)],
            env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        line = process.stdout.readline()
        return line.split()[3] if line else process.communicate()[1], process

    yield serve
    for process in started:
        process.terminate()
        process.communicate()


def _kids(url):
    return [key["kid"] for key in httpx.get(f"{url}/.well-known/jwks").json()["keys"]]


def test_keys_in_a_file_outlive_a_restart(served, tmp_path):
    """Keys in a file survive a restart, even after a rotation; only this user can read the file."""
    file = tmp_path / "keys.pem"
    url, process = served("--keys", file)
    first = httpx.get(f"{url}/.well-known/jwks").json()
    rotated = MockClient(url).rotate()
    process.terminate()
    process.wait()
    file.chmod(0o644)

    again, _ = served("--keys", file)

    published = httpx.get(f"{again}/.well-known/jwks").json()["keys"]
    assert published[0]["kid"] == rotated
    assert published[1:] == first["keys"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys.pem"]


def test_each_issuer_of_a_server_has_a_file_of_its_own(served, tmp_path):
    """With one option, each issuer of a server has its own key file, and two issuers never share a key."""
    file = tmp_path / "keys.pem"
    words = ("--keys", file, "--issuer", "https://token.actions.githubusercontent.com", "--issuer", "/octo")
    url, process = served(*words)
    before = [_kids(url), _kids(f"{url}/octo")]
    process.terminate()
    process.wait()

    again, _ = served(*words)

    assert [_kids(again), _kids(f"{again}/octo")] == before
    assert not set(before[0]) & set(before[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.pem", "keys.pem.octo"]
    assert MockClient(f"{again}/octo").issuer == f"{again}/octo"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "mock-idp: --keys: {file} is not a key file of mock-idp: it has no private key\n"),
        (None, "mock-idp: --keys: cannot use {file}: No such file or directory\n"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used_is_one_line(served, tmp_path, content, message):
    """An unusable key file exits with 2 and is not overwritten."""
    file = tmp_path / "keys.pem" if content else tmp_path / "gone" / "keys.pem"
    if content:
        file.write_bytes(content)

    err, process = served("--keys", file)

    assert process.returncode == 2
    assert err == message.format(file=file)
    assert content is None or file.read_bytes() == content


@pytest.mark.parametrize("words", [("run", "SAMPLE"), ("env",)])
def test_no_code_page_kills_the_output(idp, sample_action, tmp_path, words):
    """Characters missing from the output's code page, as on Windows, are escaped instead of raising an error."""
    words = [str(sample_action) if word == "SAMPLE" else word for word in words]
    options = ("--url", idp.url, "--environment", "☃ prod")

    code, out, err = _mock_idp(
        *words, *options, "--workflow-name", "☃", PYTHONIOENCODING="cp1252", TMPDIR=str(tmp_path)
    )

    assert (code, err) == (0, "")
    assert "\\u2603" in out or words[0] == "run"
