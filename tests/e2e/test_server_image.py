"""The provider's image in the real Docker engine works read-only, without root and without privileges."""

import json

import httpx
import pytest

from kit.docker import CLASSIC, docker, new_tag
from kit.processes import free_port, output_of, wait_until
from kit.tokens import bearer

pytestmark = [
    pytest.mark.docker,
    pytest.mark.xdist_group("docker"),
    pytest.mark.usefixtures("docker_engine"),
]

LIB = "/var/lib/sentryagent"


@pytest.fixture(scope="module")
def image(checkout):
    """The image, built by `make server-image` with the classic builder."""
    with new_tag("sentryagent-idp-test") as tag:
        output_of("make", "server-image", f"SERVER_IMAGE={tag}", cwd=checkout, env=CLASSIC)
        yield tag


@pytest.fixture
def container(image, github, transcript):
    """A running provider on the host's network, with its database in a tmpfs."""
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
        wait_until(
            lambda: httpx.get(f"{url}/ready", trust_env=False).is_success,
            "the provider",
            log=lambda: transcript.run("docker", "logs", container).stderr,
        )
        yield container, url
    finally:
        docker("rm", "--force", container)


def test_it_exchanges_a_token_and_stops_in_order(container, github, repository, transcript):
    """The container becomes healthy, issues an admin token, creates a policy, exchanges a token and stops with code 0."""
    container, url = container
    admin = bearer(docker("exec", container, "sentryagent-idp", "admin-token"))
    token = github.control("POST", "token", claims={"repository": repository, "aud": url}).json()["token"]

    with httpx.Client(base_url=f"{url}/api/v1", trust_env=False) as client:
        policy = client.post("/oidc/trust-policies", json={"repository": repository}, headers=admin)
        issued = client.post("/oidc/token", json={"token": token})

    assert (policy.status_code, issued.status_code) == (201, 200), issued.text
    assert b"agentidp_tokens_issued_total" in httpx.get(f"{url}/metrics", trust_env=False).content
    assert httpx.get(f"{url}/docs", trust_env=False).is_success

    def state():
        return json.loads(docker("inspect", "-f", "{{json .State}}", container))

    wait_until(lambda: state()["Health"]["Status"] == "healthy", "the container")
    docker("stop", "--time=35", container)
    assert state()["ExitCode"] == 0
    assert "issuer" in transcript.run("docker", "logs", container).stderr


def test_what_is_in_it(image):
    """The image contains the provider and its dependencies, but no compiler, test tool or mock of GitHub, and no root."""
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
    """The image's user can write only to the database's folder."""
    search = "find /opt /usr /etc /var -writable -not -type l -not -path /var/tmp 2>/dev/null; true"
    found = docker("run", "--rm", "--network=none", "--entrypoint=sh", image, "-c", search)

    assert found.splitlines() == [LIB]
