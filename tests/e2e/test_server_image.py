"""The provider's image in the real Docker engine: read-only, without root, without privileges, and it does its work."""

import contextlib
import json
import os
import socket
import subprocess
import threading
from uuid import uuid4

import httpx
import pytest

pytestmark = [
    pytest.mark.docker,
    pytest.mark.xdist_group("docker"),
    pytest.mark.usefixtures("docker_engine"),
]

LIB = "/var/lib/sentryagent"
PATIENCE = 30


def docker(*arguments, **options):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_until(ask):
    """Ask until the answer is true; connections that are refused meanwhile are part of a start."""
    pause = threading.Event()
    for _ in range(PATIENCE * 10):
        with contextlib.suppress(httpx.TransportError):
            if ask():
                return
        pause.wait(0.1)
    pytest.fail("the container did not get there")


@pytest.fixture(scope="module")
def image(checkout):
    """The image as `make server-image` builds it with the classic builder."""
    tag = f"sentryagent-idp-test:{uuid4().hex}"
    environ = os.environ | {"DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        ["make", "server-image", f"SERVER_IMAGE={tag}"],
        cwd=checkout,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield tag
    docker("rmi", tag)


@pytest.fixture
def container(image, github):
    """A running provider on the host's network, its database in memory."""
    port = free_port()
    settings = {"HOST": "127.0.0.1", "PORT": port, "WORKERS": 1, "GITHUB_ISSUER": github.url}
    container = docker(
        "run",
        "--detach",
        "--read-only",
        "--network=host",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--health-interval=1s",
        f"--tmpfs={LIB}:uid=10001,mode=0700",
        *(f"--env=SENTRYAGENT_{name}={value}" for name, value in settings.items()),
        image,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: httpx.get(f"{url}/ready", trust_env=False).is_success)
        yield container, url
    finally:
        docker("rm", "--force", container)


def test_it_exchanges_a_token_and_stops_in_order(container, github, repository, transcript):
    """Ready, healthy, an admin's token from inside, a policy, an exchange; SIGTERM ends it with code 0."""
    container, url = container
    admin = {"Authorization": f"Bearer {docker('exec', container, 'sentryagent-idp', 'admin-token')}"}
    token = github.control("POST", "token", claims={"repository": repository, "aud": url}).json()["token"]

    with httpx.Client(base_url=f"{url}/api/v1", trust_env=False) as client:
        policy = client.post("/oidc/trust-policies", json={"repository": repository}, headers=admin)
        issued = client.post("/oidc/token", json={"token": token})

    assert (policy.status_code, issued.status_code) == (201, 200), issued.text
    assert b"agentidp_tokens_issued_total" in httpx.get(f"{url}/metrics", trust_env=False).content
    assert httpx.get(f"{url}/docs", trust_env=False).is_success
    state = "{{json .State}}"
    wait_until(lambda: json.loads(docker("inspect", "-f", state, container))["Health"]["Status"] == "healthy")
    docker("stop", "--time=35", container)
    assert json.loads(docker("inspect", "-f", state, container))["ExitCode"] == 0
    logs = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
    transcript.add("the container", logs.stdout + logs.stderr)
    assert "issuer" in logs.stderr


def test_what_is_in_it(image):
    """The provider and what it needs: no compiler, no test tool, no mock of GitHub, no other user."""
    listing = docker(
        "run",
        "--rm",
        "--read-only",
        "--network=none",
        "--entrypoint=sh",
        image,
        "-c",
        "id -u; command -v cc gcc mock-idp; ls /opt/sentryagent/lib/python3*/site-packages",
    ).splitlines()

    assert listing[0] == "10001"
    assert not [line for line in listing if line.startswith("/")]
    assert {"sentryagent_idp", "granian", "psycopg_binary"} <= set(listing)
    assert not {"mock_idp", "sentryagent_actions", "pytest", "pip", "hatchling"} & set(listing)
    assert docker("run", "--rm", "--network=none", image, "--version").startswith("sentryagent-idp, version ")


def test_no_byte_of_it_can_be_changed(image):
    """Its own user may write nothing but its database's folder."""
    search = "find /opt /usr /etc /var -writable -not -type l -not -path /var/tmp 2>/dev/null; true"
    found = docker("run", "--rm", "--network=none", "--entrypoint=sh", image, "-c", search)

    assert found.splitlines() == [LIB]
