import json
import os
import re
import shlex
import signal
import subprocess
import sys

import httpx
import pytest

from kit.processes import PATIENCE_SECONDS

MOCK_IDP = [sys.executable, "-c", "from mock_idp.cli.main import main; main()"]
LISTENING = re.compile(r"mock-idp: listening on (http://127\.0\.0\.1:\d+) \(issuer (\S+)\)\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_tells_where_it_listens_and_ends_when_asked(number):
    """`serve` prints one line when it is ready, and exits with 0 on a signal, without output on stderr."""
    with subprocess.Popen(
        [*MOCK_IDP, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        listening = LISTENING.fullmatch(process.stdout.readline())
        status = httpx.get(f"{listening[1]}/.well-known/openid-configuration").status_code
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)

    assert listening[1] == listening[2]
    assert (status, process.returncode, out, err) == (200, 0, "", "")


def test_the_list_of_commands_shows_whole_sentences(command):
    """Each command's help fits its line, because Click truncates longer sentences."""
    lines = command("--help")[1].partition("Commands:\n")[2].splitlines()

    assert len(lines) == 6
    assert not [line for line in lines if not line.endswith(".") or line.endswith("...")]


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("env", "http://127.0.0.1:3001"),
        ("run", "http://127.0.0.1:3001"),
        ("attack", "http://127.0.0.1:3001"),
        ("exec", "(a mock that runs as long as the command)"),
        ("act", "(a mock that runs as long as the command)"),
    ],
)
def test_help_says_which_mock_is_asked_without_a_url(command, name, default):
    """The help names the default mock; `exec` and `act` start their own."""
    help_of_url = " ".join(
        command(name, "--help")[1].partition("--url")[2].partition("--repository")[0].split()
    )

    assert f"default: {default}]" in help_of_url


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["serve", "--port", "x"], {}, "--port"),
        (["serve"], {"MOCK_IDP_PORT": "65536"}, "MOCK_IDP_PORT"),
        (["serve"], {"MOCK_IDP_ISSUER": "https://a.example/"}, "MOCK_IDP_ISSUER"),
        (["serve", "--issuer", "a.example"], {}, "--issuer"),
        (["serve", "--issuer", "https://a.example/?x=1"], {}, "--issuer"),
        (["serve", "--host", "256.1.1.1"], {}, "cannot listen on 256.1.1.1:3001"),
        (["serve", "--colour"], {}, "--colour"),
        (["env", "--id-token", "read"], {}, "--id-token"),
        (["env"], {"MOCK_IDP_VISIBILITY": "secret"}, "MOCK_IDP_VISIBILITY"),
        (["env", "--repository-property", "x"], {}, "--repository-property"),
        (["env"], {"MOCK_IDP_URL": "http://127.0.0.1:1"}, "start one with `mock-idp serve`"),
        (["env"], {"MOCK_IDP_URL": "nonsense"}, "no mock-idp answers at nonsense"),
        (["run", "/no/such/folder"], {}, "/no/such/folder"),
        ([], {}, "Missing command"),
        (["fly"], {}, "fly"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr(command, words, environment, message):
    """Wrong usage exits with 2 and one line on stderr, which names the flag or variable."""
    code, out, err = command(*words, **environment)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("mock-idp: ")
    assert message in err


def test_a_port_in_use_is_explained(command, idp):
    """If the port is in use, the message suggests another host or port."""
    code, _, err = command("serve", "--port", idp.url.rpartition(":")[2])

    assert code == 2
    assert re.search(r"cannot listen on 127\.0\.0\.1:\d+ \(.*in use\); choose another --host or --port", err)


def test_a_refused_option_is_named_as_the_flag_that_was_typed(command, idp):
    """The error names the flag, not the mock's field."""
    code, out, err = command("env", "--url", idp.url, "--called-workflow", "deploy.yml")

    assert (code, out) == (2, "")
    assert err == "mock-idp: --called-workflow must be OWNER/REPO/.github/workflows/FILE.yml@REF\n"


def test_env_prints_what_a_shell_can_evaluate(command, idp):
    """The URL and token that `env` prints give an ID token."""
    _, out, _ = command("env", "--url", idp.url, "--ref", "refs/tags/v1")

    variables = dict(shlex.split(line)[1].split("=", 1) for line in out.splitlines())
    bearer = {"Authorization": f"bearer {variables['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"}
    assert httpx.get(variables["ACTIONS_ID_TOKEN_REQUEST_URL"], headers=bearer).status_code == 200
    assert (variables["GITHUB_REF"], variables["GITHUB_REF_TYPE"]) == ("refs/tags/v1", "tag")


def test_env_for_act_survives_the_shells_word_splitting(command, idp):
    """The shell splits the output of `mock-idp env --format act` into act's arguments correctly."""
    _, out, _ = command("env", "--format", "act", MOCK_IDP_URL=idp.url)

    words = subprocess.run(
        ["sh", "-c", 'printf "%s\\n" $WORDS'], env=os.environ | {"WORDS": out}, capture_output=True, text=True
    ).stdout.splitlines()
    assert set(words[::2]) == {"--env"}
    assert words[1].startswith(f"ACTIONS_ID_TOKEN_REQUEST_URL={idp.url}/232//idtoken/")


@pytest.mark.parametrize("mode", ["none", "fork"])
def test_env_without_permission_lacks_the_two_variables(command, idp, mode):
    """Without the permission, the two variables are missing, as on the real runner."""
    _, out, _ = command("env", "--format", "json", "--id-token", mode, MOCK_IDP_URL=idp.url)

    assert not {"ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"} & json.loads(out).keys()


def test_a_flag_wins_over_its_variable(command, idp):
    """A flag overrides its variable, which overrides the default."""
    words = ("env", "--url", idp.url, "--format", "json")
    environment = {"MOCK_IDP_REPOSITORY": "octo-org/variable"}

    _, by_variable, _ = command(*words, **environment)
    _, by_flag, _ = command(*words, "--repository", "octo-org/flag", **environment)

    assert json.loads(by_variable)["GITHUB_REPOSITORY"] == "octo-org/variable"
    assert json.loads(by_flag)["GITHUB_REPOSITORY"] == "octo-org/flag"


def test_every_option_of_a_job_reaches_it(command, idp):
    """Flags, repeatable flags and name-value pairs reach the job."""
    words = [
        "--immutable-sub",
        "--ref-protected",
        "--include-claim-key",
        "repo",
        "--include-claim-key",
        "context",
    ]
    pairs = ["--repository-property", "team=blue", "--repository-property", "tier=1=2"]

    code, _, _ = command("env", "--url", idp.url, *words, *pairs)

    job = next(iter(idp.state._jobs.values())).job
    assert (code, job.immutable_sub, job.ref_protected) == (0, True, True)
    assert job.include_claim_keys == ("repo", "context")
    assert job.repository_properties == {"team": "blue", "tier": "1=2"}


def test_importing_the_command_line_is_light():
    """Importing the command line loads neither Flask nor cryptography, which would delay `env`."""
    code = "import sys, mock_idp.cli.main; print({'flask', 'cryptography', 'yaml', 'jwt'} & set(sys.modules))"

    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
