"""The manuals as an admin uses them: every shell block is pasted unchanged and does what its text promises.

Each block of each document is in one of three tables: run here, run by another test, or not run, with the reason. A
test fails for a new block until it is in one of them.
"""

import json
import os
import re
import shlex
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from kit import manual
from kit.processes import BIN, ROOT, Served, free_port, output_of, run, wait_until
from kit.tokens import claims_of

pytestmark = pytest.mark.xdist_group("manual")

EXAMPLE_AGENTS = ("3f2504e0-4f89-41d3-9a0c-0305e82c3301", "0b7c1a52-6f0e-4f6a-9d39-5b1f6ad0c1de")
EXAMPLE_REPOSITORIES = ("octo-org/hello-agent", "octo-org/octo-repo")
PIPX = f"""\
#!/bin/sh
case "$*" in
"install sentryagent-actions") exit 0 ;;
"run --spec sentryagent-actions sentryagent-actions "*) shift 4 ;;
*) exit 99 ;;
esac
exec {shlex.quote(str(BIN / "sentryagent-actions"))} "$@"
"""


SYSTEMCTL = """\
#!/bin/sh
# What systemd does with the unit, without its sandbox.
cd "$MACHINE" || exit
case "$1" in
daemon-reload) test -s etc/systemd/system/sentryagent-idp.service; exit ;;
enable) test "$2 $3" = "--now sentryagent-idp" || exit 99 ;;
restart) kill "$(cat pid)"; tail --pid="$(cat pid)" -f /dev/null ;;
*) exit 99 ;;
esac
set -a
. etc/sentryagent-idp/settings.env
SENTRYAGENT_DATABASE_URL_FILE=etc/sentryagent-idp/database-url
SENTRYAGENT_KEY_ENCRYPTION_KEY_FILE=etc/sentryagent-idp/key-encryption-key
opt/sentryagent-idp/bin/sentryagent-idp serve > log 2>&1 &
echo $! > pid
"""


@dataclass(frozen=True)
class Scene:
    """An admin on the provider's machine, in a new folder, with an agent and the name of a repository."""

    provider: Served
    folder: Path
    repository: str
    agent_id: str
    start: Callable[..., Any]
    fixture: Callable[[str], Any]

    def paste(self, text: str, **settings: str) -> str:
        """Paste a text into a new shell and return its output."""
        with self.start(**settings) as terminal:
            return terminal.paste(text)

    def created(self, printed: str, path: str, key: str) -> dict[str, Any]:
        """The provider's current record of the resource that a printed response created."""
        [identifier] = re.findall(rf'"{key}":"([0-9a-f-]{{36}})"', printed)
        with self.provider.client("/api/v1", headers=self.provider.admin) as admin:
            return admin.get(f"/{path}/{identifier}").raise_for_status().json()

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        with self.provider.client("/api/v1", headers=self.provider.admin) as admin:
            return admin.post(path, json=body).raise_for_status().json()

    def id_token(self, **job: str) -> str:
        """The ID token of a run, by default of the repository on main."""
        job = {"repository": self.repository} | job
        github = self.fixture("github")
        return github.control("POST", "token", job=job, claims={"aud": self.provider.url}).json()["token"]

    def decision(self, **job: str) -> dict[str, Any]:
        """The provider's simulated decision for a run that requests the agent's token."""
        body = {"token": self.id_token(**job), "agentId": self.agent_id}
        return self.post("/oidc/trust-policies/simulate", **body)


@pytest.fixture(scope="module")
def machine(services, provider_program, tmp_path_factory):
    """The provider's machine: a provider on SQLite, with its folder."""
    github, _ = services
    folder = tmp_path_factory.mktemp("machine")
    database = f"sqlite:///{folder}/provider.db"
    with provider_program(folder / "sentryagent-idp.log", github.url, DATABASE_URL=database) as served:
        yield served


@pytest.fixture
def scene(machine, repository, agent_name, tmp_path, transcript, request):
    with machine.client("/api/v1", headers=machine.admin) as admin:
        agent = admin.post("/agents", json={"email": agent_name}).raise_for_status().json()["agentId"]
    identifier = f"https://{repository.partition('/')[2]}.example.com"
    places = {"https://idp.example.com": machine.url, "https://deploy.example.com": identifier}
    places |= dict.fromkeys(EXAMPLE_AGENTS, agent) | dict.fromkeys(EXAMPLE_REPOSITORIES, repository)

    @contextmanager
    def start(more=None, **settings):
        known = places | (more or {})
        here = partial(re.compile("|".join(map(re.escape, known))).sub, lambda place: known[place[0]])
        own = {"PATH": f"{tmp_path}/programs:{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path)}
        own["SENTRYAGENT_ADMIN_TOKEN"] = machine.admin["Authorization"].removeprefix("Bearer ")
        environ = {**machine.environ, **own, **settings}
        told = partial(transcript.add, "the terminal")
        with manual.Terminal(tmp_path, environ, told, here) as terminal:
            yield terminal

    return Scene(machine, tmp_path, repository, agent, start, request.getfixturevalue)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def key_file(scene, text):
    """The block creates a key that the provider accepts and only its owner can read; a second paste does not replace it."""
    key = scene.folder / "encryption.key"
    scene.paste(text)
    first = key.read_text()
    scene.paste(text)

    assert (key.read_text(), mode(key)) == (first, 0o600)
    assert re.fullmatch(r"[0-9a-f]{64}\n", first)
    settings = {"KEY_ENCRYPTION_KEY_FILE": str(key), "DATABASE_URL": f"sqlite:///{scene.folder}/new.db"}
    with Served(
        scene.folder / "log", {**scene.provider.environ, **prefixed(settings)}, "--workers", 1
    ) as served:
        assert "next" in served.command("keys", "list")


def prefixed(settings):
    return {f"SENTRYAGENT_{name}": value for name, value in settings.items()}


@contextmanager
def tls(cluster, folder):
    """Enable TLS in the cluster; yield the file with the CA's certificate."""
    authority, files = trustme.CA(), [cluster.folder / it for it in ("server.pem", "server.key")]
    issued = authority.issue_cert("127.0.0.1")
    for file, pem in zip(files, (issued.cert_chain_pems[0], issued.private_key_pem), strict=True):
        file.touch(mode=0o600)
        pem.write_to_path(str(file))
        shutil.chown(file, cluster.folder.owner(), cluster.folder.group())
    settings = {"ssl_cert_file": files[0], "ssl_key_file": files[1], "ssl": "on"}
    try:
        for name, value in settings.items():
            cluster.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        cluster.execute("SELECT pg_reload_conf()")
        with_tls = f"host=127.0.0.1 port={cluster.port} user=postgres sslmode=require"
        wait_until(lambda: run("psql", "-c", "SELECT", with_tls).returncode == 0, "TLS of PostgreSQL")
        authority.cert_pem.write_to_path(str(folder / "roots.pem"))
        yield folder / "roots.pem"
    finally:
        for name in settings:
            cluster.execute(f"ALTER SYSTEM RESET {name}")
        cluster.execute("SELECT pg_reload_conf()")


def postgresql(scene, text):
    """The block creates a database owned by a role without other rights; the provider uses it and checks its certificate."""
    cluster = scene.fixture("postgres_cluster")
    try:
        with tls(cluster, scene.folder) as roots:
            printed = create_database(scene, text, cluster, roots)
            password, url = (scene.folder / f"database.{it}" for it in ("password", "url"))
            environ = scene.provider.environ | {"SENTRYAGENT_DATABASE_URL_FILE": str(url)}
            del environ["SENTRYAGENT_DATABASE_URL"]
            with Served(scene.folder / "log", environ, "--workers", 1) as served:
                assert "active" in served.command("keys", "list")
            trustme.CA().cert_pem.write_to_path(str(roots))
            stranger = run(BIN / "sentryagent-idp", "migrate", env=environ)
        assert "certificate verify failed" in stranger.stderr
        assert {mode(password), mode(url)} == {0o600}
        assert password.read_text().strip() not in printed + (scene.folder / "log").read_text()
    finally:
        cluster.execute("DROP DATABASE IF EXISTS sentryagent WITH (FORCE)")
        cluster.execute("DROP ROLE IF EXISTS sentryagent")


def create_database(scene, text, cluster, roots):
    """Paste the block with the cluster for `db.example.com`, and return its output."""
    places = {
        "@db.example.com": f"@127.0.0.1:{cluster.port}",
        "db.example.com": "127.0.0.1",
        "/etc/ssl/certs/ca-certificates.crt": str(roots),
    }
    rights = (
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolpassword LIKE 'SCRAM-SHA-256$%'"
        " FROM pg_authid WHERE rolname = 'sentryagent'"
    )
    with scene.start(places, PGPORT=str(cluster.port)) as terminal:
        terminal.paste("unset SENTRYAGENT_DATABASE_URL")
        printed = terminal.paste(text)
        given = terminal.paste(f"psql -h 127.0.0.1 -U postgres -d postgres -At -c {shlex.quote(rights)}")
    assert "applied 001" in printed
    assert given.strip() == "f|f|f|t"
    return printed


def cut_end(scene, text):
    """The script accepts a chain that grows, and fails if the chain's end was cut."""
    database = scene.folder / "copy.db"
    script = scene.folder / "verify-head.sh"
    scene.provider.command("backup", database)
    environ = scene.provider.environ | prefixed({"DATABASE_URL": f"sqlite:///{database}"})
    with Served(scene.folder / "log", environ, "--workers", 1) as served:
        script.write_text(text)
        settings = {"API_URL": served.url, "TOKEN": served.command("admin-token")}
        environ = {**environ, **settings}

        def verify():
            return run("sh", script, cwd=scene.folder, env=environ)

        assert (verify().returncode, verify().returncode) == (0, 0)
        kept = json.loads((scene.folder / "head.json").read_text())
        assert kept["seal"] > 0
        served.command("admin-token")
        assert verify().returncode == 0
        assert json.loads((scene.folder / "head.json").read_text())["seal"] == kept["seal"] + 1
        cut_last_records(database, 2)
        broken = verify()
        assert (broken.returncode, "its end was cut" in broken.stderr) == (1, True)


def cut_last_records(database, number):
    """Delete the last records, their seals and the checkpoint, as anyone with write access to the database can."""
    with closing(sqlite3.connect(database)) as connection:
        last = f"(SELECT max(seal) - {number} FROM audit_seals)"
        connection.execute(
            f"DELETE FROM audit_log WHERE sequence > (SELECT sequence FROM audit_seals WHERE seal = {last})"
        )
        connection.execute(f"DELETE FROM audit_seals WHERE seal > {last}")
        connection.execute("DELETE FROM facts WHERE name = 'audit_checkpoint'")
        connection.execute(
            "UPDATE sqlite_sequence SET seq = (SELECT max(sequence) FROM audit_log) WHERE name = 'audit_log'"
        )
        connection.commit()


def verify_from_head(scene, text):
    """The chain is valid from a saved head; for a head that never existed, the exit code is 1."""
    with scene.provider.client("/api/v1", headers=scene.provider.admin) as admin:
        head = admin.get("/audit/verify").json()["head"]
    file = scene.folder / "head.json"
    file.write_text(json.dumps(head))
    assert head["hash"] in scene.paste(text)
    file.write_text(json.dumps(head | {"hash": "0" * 64}))
    assert "exit code 1" in scene.paste(f"{text.rstrip()} || echo exit code $?")


def export(scene, text):
    """The block prints records whose details are an object and whose timestamps are ISO 8601."""
    decoder, printed, records = json.JSONDecoder(), scene.paste(text).strip(), []
    while printed:
        record, end = decoder.raw_decode(printed)
        records.append(record)
        printed = printed[end:].lstrip()
    assert "agent.created" in {it["action"] for it in records}
    assert all(isinstance(it["details"], dict) for it in records)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", it["timestamp"]) for it in records)


def policy_for_agent(scene, text):
    """After the block, the repository's runs on main may act as the agent."""
    policy = scene.created(scene.paste(text), "oidc/trust-policies", "id")
    assert (policy["repository"], policy["branch"]) == (scene.repository, "main")
    allowed = scene.post("/oidc/token", token=scene.id_token(), agentId=scene.agent_id, dryRun=True)
    assert (allowed["allowed"], allowed["policyId"]) == (True, policy["id"])


REUSABLE = "octo-org/workflows/.github/workflows/deploy.yml@refs/heads/main"


def recipes(scene, text):
    """Each recipe's policy allows the run that it is for; a run on another branch is refused."""
    many = [f"{scene.repository}-{it}" for it in ("a", "b")]
    (scene.folder / "repositories.txt").write_text("".join(f"{it}\n" for it in many))
    ids = re.findall(r'"id":"([0-9a-f-]{36})"', scene.paste(text))

    merge = "refs/heads/gh-readonly-queue/main/pr-7-0123456789abcdef0123456789abcdef01234567"
    runs = [
        {"ref": "refs/tags/v1.4.0", "workflow": "release.yml", "environment": "release"},
        {"calledWorkflow": REUSABLE},
        {"ref": merge, "event": "merge_group"},
        {"ref": "refs/pull/7/merge", "event": "pull_request"},
    ]
    assert [scene.decision(**run)["policyId"] for run in runs] == ids[:4]
    assert [scene.decision(repository=it)["policyId"] for it in many] == ids[4:]
    assert scene.decision(ref="refs/heads/other")["code"] == "BRANCH_NOT_PERMITTED"


def rename(scene, text):
    """The policies pinned to the repository's id get the new name and otherwise stay unchanged."""
    job = {"repository": scene.repository}
    pinned = {"repositoryId": claims_of(scene.id_token())["repository_id"], "repositoryOwnerId": "7"}
    policy = scene.post("/oidc/trust-policies", **job, **pinned, branch="main", agentId=scene.agent_id)

    printed = scene.paste(
        text.replace("octo-org/new-name", f"{scene.repository}-new"), REPOSITORY_ID=pinned["repositoryId"]
    )

    renamed = scene.created(printed, "oidc/trust-policies", "id")
    ignored = {"updatedAt", "version", "repository"}
    assert renamed["repository"] == f"{scene.repository}-new"
    assert {k: v for k, v in renamed.items() if k not in ignored} == {
        k: v for k, v in policy.items() if k not in ignored
    }


def suspension(scene, text):
    """After the block, the agent's exchanges are refused at once."""
    scene.post("/oidc/trust-policies", repository=scene.repository, branch="main", agentId=scene.agent_id)
    before = scene.decision()
    scene.paste(text)
    assert (before["allowed"], scene.decision()["allowed"]) == (True, False)


def policy_for_registering(scene, text):
    """After the block, the repository's runs on main may register agents."""
    policy = scene.created(scene.paste(text), "oidc/trust-policies", "id")
    assert policy["trustRegistered"] is True
    assert scene.post("/oidc/token", token=scene.id_token(), dryRun=True)["policyId"] == policy["id"]


def service(scene, text):
    """The block registers the service with both scopes."""
    created = scene.created(scene.paste(text), "services", "serviceId")
    assert [it["name"] for it in created["scopes"]] == ["deploy:read", "deploy:production"]
    assert created["maxTtl"] == 600


def service_identifier(scene):
    """The identifier that replaces the example's."""
    return f"https://{scene.repository.partition('/')[2]}.example.com"


def with_service(scene):
    """Register the example's service."""
    scopes = [{"name": "deploy:production"}]
    return scene.post("/services", identifier=service_identifier(scene), scopes=scopes)


def client_of_service(scene, text):
    """The block prints the id and secret of the service's new client."""
    with_service(scene)
    assert re.search(
        r"^client_id=service-\S+\nclient_secret=sk_live_[0-9a-f]{64}$", scene.paste(text), re.MULTILINE
    )


def introspection(scene, text):
    """With the block, the service's client sees that a token for the service is active."""
    identifier = with_service(scene)["identifier"]
    grants = [{"service": identifier, "scopes": ["deploy:production"]}]
    policy = {"repository": scene.repository, "branch": "main", "agentId": scene.agent_id, "scopes": []}
    scene.post("/oidc/trust-policies", **policy, grants=grants)
    body = {"token": scene.id_token(), "agentId": scene.agent_id, "resource": identifier}
    token = scene.post("/oidc/token", **body)["access_token"]
    made = scene.provider.command("clients", "create", "deploy-service", "--service", identifier)
    secrets = dict(line.split("=", 1) for line in made.splitlines())
    names = {"CLIENT_ID": secrets["client_id"], "CLIENT_SECRET": secrets["client_secret"], "TOKEN": token}

    report = json.loads(scene.paste(text, **names))

    assert (report["active"], report["aud"], report["sub"]) == (True, identifier, claims_of(token)["sub"])


def command_in_a_job(scene, text):
    """In a job, the block's command issues the agent's token, and `revoke` revokes it."""
    policy = {"repository": scene.repository, "branch": "main", "agentId": scene.agent_id}
    scene.post("/oidc/trust-policies", **policy)
    program = scene.folder / "programs" / "pipx"
    program.parent.mkdir()
    program.write_text(PIPX)
    program.chmod(0o755)
    (scene.folder / "temp").mkdir()
    files = {name: str(scene.folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    with scene.start(**files, RUNNER_TEMP=str(scene.folder / "temp")) as terminal:
        job = f"--url {scene.fixture('github').url} --repository {scene.repository}"
        terminal.paste(f'eval "$(mock-idp env {job})"')
        # Unlike a runner, a terminal does not apply masks.
        terminal.paste(f"{{\n{text}}} > step.log; sentryagent-actions revoke >> step.log")
    log = (scene.folder / "step.log").read_text()
    assert "Issued a token for agent" in log
    assert "The access token is revoked." in log
    assert "authenticated" in Path(files["GITHUB_OUTPUT"]).read_text()


RUN: dict[str, Callable[[Scene, str], None]] = {
    "docs/audit.md#A cut end": cut_end,
    "docs/audit.md#A cut end 2": verify_from_head,
    "docs/audit.md#Exporting it": export,
    "docs/one-step-action.md#The one-step action": policy_for_registering,
    "docs/operations.md#Keys at rest": key_file,
    "docs/operations.md#PostgreSQL": postgresql,
    "docs/services.md#Check it at the service": client_of_service,
    "docs/services.md#Check it at the service 2": introspection,
    "docs/services.md#Register a service": service,
    "docs/trust-policies.md#Recipes": recipes,
    "docs/trust-policies.md#Trust policies": policy_for_agent,
    "docs/trust-policies.md#When a repository is renamed": rename,
    "docs/trust-policies.md#When an agent is no longer needed": suspension,
    "docs/verify-tokens.md#nginx": client_of_service,
    "docs/without-docker.md#As a command": command_in_a_job,
    "issue-token/README.md#Quick start": policy_for_agent,
    "register-agent/README.md#Quick start": policy_for_registering,
    "sentryagent_actions/README.md#sentryagent-actions": command_in_a_job,
}
"""The blocks that are run here, and the test of each block's promise."""

LAYERS = {"docs/operations.md#PostgreSQL": pytest.mark.postgres}
"""The test layer that a block needs."""

ELSEWHERE = {
    "README.md": "e2e/test_readme.py",
    "docs/operations.md#Backup and restore": "contract/deploy/test_backups.py",
    "docs/operations.md#Backup and restore 2": "contract/deploy/test_backups.py",
    "docs/operations.md#Rolling restart": "e2e/test_manual.py",
    "docs/operations.md#Upgrade": "e2e/test_manual.py",
    "docs/operations.md#systemd": "e2e/test_manual.py",
    "mock_idp/README.md#Attack a verifier": "contract/mock_idp/test_attack.py",
    "mock_idp/README.md#Control API": "contract/mock_idp/test_manual.py",
    "mock_idp/README.md#Names, containers, TLS": "e2e/test_mock_image.py",
    "mock_idp/README.md#Quick starts": "contract/mock_idp/test_manual.py",
}
"""The blocks that another test reads from the document and runs; a document's name stands for all of its blocks."""

NOT_RUN = {
    "docs/operations.md#Kubernetes": "needs a cluster; test_kubernetes.py renders the manifests",
    "docs/release-checklist.md#Release checklist": "compares with published repositories and images",
    "issue-token/README.md#GitHub Enterprise Server": "the digest is left out; test_actions_dist.py runs the command",
    "issue-token/README.md#Recipes": "writes variables of a repository on GitHub",
    "issue-token/README.md#Security": "asks GitHub about a published image",
}
"""The blocks that no test can run unchanged, with the reason."""


def every_block():
    """All shell blocks by name."""
    found = {it.name: it for name in manual.documents() for it in manual.blocks(name, *manual.SHELL)}
    assert "docs/operations.md#Keys at rest" in found
    return found


def is_in(name, table):
    """Whether a table contains a block, its heading or its document."""
    return {name, re.sub(" [0-9]+$", "", name), name.partition("#")[0]} & table.keys()


@pytest.mark.parametrize("name", [pytest.param(it, marks=LAYERS.get(it, ())) for it in RUN])
def test_a_block_runs_as_pasted(name, scene):
    """Every command of the block succeeds, and the block does what its text promises."""
    RUN[name](scene, every_block()[name].text)


@pytest.fixture
def unit_machine(tmp_path):
    """The folders of a machine with systemd, and its variables, with a package index that contains this version."""
    programs, machine = tmp_path / "programs", tmp_path / "machine"
    for folder in (
        programs,
        *(machine / it for it in ("opt", "etc/systemd/system", "var/lib/sentryagent-idp")),
    ):
        folder.mkdir(parents=True)
    (programs / "systemctl").write_text(SYSTEMCTL)
    (programs / "systemctl").chmod(0o755)
    wheels = tmp_path / "wheels"
    build = ("wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", wheels)
    output_of(sys.executable, "-m", "pip", *build, ROOT / "server")
    variables = manual.offline_python(programs) | {"PIP_FIND_LINKS": str(wheels), "MACHINE": str(machine)}
    return machine, variables


def test_the_blocks_under_systemd_in_their_order(unit_machine, scene):
    """The provider is ready after the install, the restart and the upgrade, and an admin token stays valid."""
    machine, variables = unit_machine
    port = str(free_port())
    places = {it: f"{machine}{it}" for it in ("/opt/", "/etc/", "/var/lib/")}
    # The next version does not exist yet, so this version is installed into the next version's folder.
    places |= {"==1.1.0": "==1.0.0", "127.0.0.1:3000": f"127.0.0.1:{port}", "deploy/": f"{ROOT}/deploy/"}
    names = ("systemd", "systemd 2", "Rolling restart", "Upgrade")
    install, token, restart, upgrade = (every_block()[f"docs/operations.md#{it}"].text for it in names)
    unset = "unset SENTRYAGENT_DATABASE_URL SENTRYAGENT_KEY_ENCRYPTION_KEY"
    with scene.start(places, SENTRYAGENT_PORT=port, SENTRYAGENT_WORKERS="1", **variables) as terminal:
        terminal.paste(unset)
        assert '"status":"ready"' in terminal.paste(install)
        terminal.paste(f"{{\n{token}}} > token")
        assert '"status":"ready"' in terminal.paste(restart)
        terminal.paste(f"{upgrade}\n{restart.splitlines()[-1]}")
        asked = 'curl -sS -H "Authorization: Bearer $(cat token)" http://127.0.0.1:3000/api/v1/audit?limit=1'
        assert '"action":"admin.token_issued"' in terminal.paste(asked)

    assert (machine / "opt" / "sentryagent-idp").resolve().name == "sentryagent-idp-1.1.0"
    assert {mode(it) for it in (machine / "etc" / "sentryagent-idp").iterdir() if "key" in it.name} == {0o600}


@pytest.mark.parametrize("name", every_block())
def test_a_block_is_run_or_says_why_it_is_not(name):
    """Each block is in exactly one table."""
    assert [name in RUN, bool(is_in(name, ELSEWHERE)), name in NOT_RUN].count(True) == 1


@pytest.mark.parametrize("name", [*RUN, *ELSEWHERE, *NOT_RUN])
def test_the_tables_name_blocks_that_exist(name):
    """The tables have no row for a block that was removed or moved under another heading."""
    assert any(is_in(block, {name: ""}) for block in every_block())


@pytest.mark.parametrize(("name", "file"), ELSEWHERE.items())
def test_the_other_test_reads_the_document(name, file):
    """The other test names the document, because it must read the block from it."""
    document = Path(name.partition("#")[0])
    assert document.name in (ROOT / "tests" / file).read_text()


@pytest.mark.parametrize("block", [pytest.param(it, id=name) for name, it in every_block().items()])
def test_a_block_is_something_that_a_shell_can_read(block):
    """Every block, even one that is not run, is valid shell syntax."""
    pasted = "".join(re.findall(r"^\$ (.*\n)", block.text, re.MULTILINE)) or block.text
    done = run("bash", "-n", input=pasted)
    assert (done.returncode, done.stderr) == (0, "")
