"""The systemd unit: a valid command and settings, enough time to stop, and a sandbox."""

import re
import shutil

import pytest

from kit.processes import BIN, ROOT, output_of
from sentryagent_idp import serve
from sentryagent_idp.cli.main import main
from sentryagent_idp.concurrency import loop
from sentryagent_idp.config import Settings, unknown_variables

MANUAL = ROOT / "docs" / "operations.md"
UNIT = ROOT / "deploy" / "systemd" / "sentryagent-idp.service"
PROGRAM = "/opt/sentryagent-idp/bin/sentryagent-idp"
CREDENTIALS = {
    "database-url": "postgresql+psycopg://sentryagent@db.example.com/sentryagent\n",
    "key-encryption-key": "0123456789abcdef0123456789abcdef\n",
}
EXPOSURE = 15
"""The exposure level of `systemd-analyze security` in tenths; 100 means no sandbox."""

has_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on PATH")


@pytest.fixture(scope="module")
def values():
    """A function that returns the values of a name in the unit, which can occur several times, in order."""
    lines = [line.partition("=") for line in UNIT.read_text().splitlines() if line[:1].isalpha()]
    return lambda wanted: [value for name, _, value in lines if name == wanted]


def test_the_command_is_the_providers(values):
    (command,) = values("ExecStart")
    program, name, *flags = command.split()

    assert program == PROGRAM
    assert main.commands[name].make_context(name, flags).params.keys() >= {"host", "port", "workers"}


def test_secrets_come_from_credentials(values, tmp_path):
    """Each secret is loaded from a file in /etc as a credential, which the provider finds through its variable."""
    loaded = dict(credential.split(":") for credential in values("LoadCredential"))
    variables = dict(variable.split("=") for variable in values("Environment"))

    assert loaded == {name: f"/etc/sentryagent-idp/{name}" for name in CREDENTIALS}
    for name, text in CREDENTIALS.items():
        (tmp_path / name).write_text(text)
    environ = {name: value.replace("%d", str(tmp_path)) for name, value in variables.items()}
    settings = Settings.from_environ(environ)
    assert list(unknown_variables(environ)) == []
    assert settings.database_url == CREDENTIALS["database-url"].strip()
    assert settings.passphrases == (CREDENTIALS["key-encryption-key"].strip(),)


def test_a_crash_writes_no_secret_to_disk(values):
    """Core dumps are off: they contain the encryption key, unencrypted, and other users than the service can read them."""
    assert values("LimitCORE") == ["0"]


def test_a_stop_is_given_the_time_that_it_takes(values):
    """Requests in flight can complete, and the supervisor, not systemd, stops the workers."""
    (seconds,) = values("TimeoutStopSec")

    assert int(seconds) > serve._DRAIN_SECONDS + loop._LAST_SECONDS
    assert values("KillMode") == ["mixed"]
    assert values("Restart") == ["always"]


def test_a_worker_may_open_as_many_files_as_it_has_connections(values):
    (limit,) = values("LimitNOFILE")

    assert int(limit) >= serve._CONNECTIONS + serve._OTHER_FILES


@has_systemd
def test_systemd_takes_the_unit(tmp_path):
    """The unit has no setting that systemd ignores, and its sandbox limits what a compromised provider can reach."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(PROGRAM, str(BIN / "sentryagent-idp")))

    assert output_of("systemd-analyze", "verify", unit) == ""
    output_of("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", unit)


def test_the_manual_makes_the_files_that_the_unit_reads(values):
    """The manual's install block writes the unit's files and puts the program and the unit in their places."""
    section = MANUAL.read_text().partition("### systemd\n")[2]
    commands = section.partition("```sh\n")[2].partition("```")[0].splitlines()
    last_words = [line.strip("()").split()[-1] for line in commands]
    read = [*values("EnvironmentFile"), *(it.partition(":")[2] for it in values("LoadCredential"))]

    assert {*read, PROGRAM.removesuffix("/bin/sentryagent-idp"), "/etc/systemd/system/"} <= set(last_words)
    assigned = re.findall(r"(SENTRYAGENT_\w+)=(\S+)", "\n".join(commands))
    settings = Settings.from_environ(dict(assigned))
    assert (settings.public_url, [str(it) for it in settings.trusted_proxies]) == (
        "https://idp.example.com",
        ["127.0.0.1/32"],
    )
    assert f"cp {UNIT.relative_to(ROOT)} /etc/systemd/system/" in commands
