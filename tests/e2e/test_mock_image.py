"""The mock's container image in the real Docker engine, built with the classic builder."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
from uuid import uuid4

import httpx
import pytest

from kit.docker import CLASSIC, docker, new_tag
from kit.processes import ROOT, run, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

HEALTHY_SECONDS = 15
MANUAL = (ROOT / "mock_idp" / "README.md").read_text()


@pytest.fixture(scope="module")
def image(checkout):
    """The image, built as in its manual."""
    with new_tag("mock-idp-test") as tag:
        with subprocess.Popen(["git", "archive", "HEAD"], cwd=checkout, stdout=subprocess.PIPE) as archive:
            words = ("build", "-q", "-t", tag, "-f", "deploy/mock/Dockerfile", "-")
            docker(*words, stdin=archive.stdout, env=CLASSIC)
        yield tag


@pytest.fixture
def container(image):
    """Start a container with these options; return its name and its address on this machine."""
    names = []

    def start(*words):
        name = f"mock-idp-test-{uuid4().hex[:12]}"
        names.append(name)
        options = ("-d", "--rm", "--read-only", "--cap-drop=ALL", "--name", name, "-p", "127.0.0.1::3001")
        docker("run", *options, *words, image)
        return name, docker("port", name, "3001").splitlines()[0]

    yield start
    for name in names:
        run("docker", "rm", "-f", name)


def test_the_block_of_the_manual_serves_the_mock(image, checkout):
    """The manual's block builds the image and serves the mock on the port that it names."""
    [block] = [text for text in re.findall(r"```sh\n(.*?)```", MANUAL, re.DOTALL) if "docker build" in text]
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 3001)):
        pytest.skip("port 3001, which the manual names, is taken")
    before = run("docker", "images", "-q", "mock-idp").stdout
    with subprocess.Popen(["bash", "-e", "-c", block], cwd=checkout, start_new_session=True) as shell:
        try:
            health = wait_until(
                lambda: httpx.get("http://127.0.0.1:3001/_mock/state", trust_env=False),
                "the mock",
                process=shell,
            )
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
    assert health.json()["issuer"] == "http://github:3001"
    if not before:
        docker("rmi", "mock-idp")


def _wait_until_healthy(name):
    status = ("inspect", "-f", "{{.State.Health.Status}}", name)
    wait_until(lambda: docker(*status) == "healthy", "the container", log=lambda: docker("logs", name))


def test_one_issuer_for_the_host_and_for_other_containers(container):
    """A read-only container without root serves one issuer, whose name other containers use, to the host as well."""
    name, address = container("-e", "MOCK_IDP_ISSUER=http://github:3001")
    _wait_until_healthy(name)

    job = httpx.post(f"http://{address}/_mock/jobs", json={}).json()
    document = httpx.get(f"http://{address}/.well-known/openid-configuration").json()
    bearer = {"Authorization": f"bearer {job['requestToken']}"}

    assert (job["issuer"], document["jwks_uri"]) == (
        "http://github:3001",
        "http://github:3001/.well-known/jwks",
    )
    assert httpx.get(job["requestUrl"], headers=bearer).json()["count"] > 0
    assert docker("exec", name, "id", "-u") == "10001"


def test_it_ends_at_once_when_it_is_told_to(container):
    """SIGTERM stops the container at once with exit code 0."""
    name, _ = container()
    _wait_until_healthy(name)
    with subprocess.Popen(["docker", "wait", name], stdout=subprocess.PIPE, text=True) as waiting:
        docker("kill", "--signal=TERM", name)
        code, _ = waiting.communicate(timeout=15)

    assert code.strip() == "0"


def test_tls_works_in_a_container_too(container, tmp_path):
    """With TLS, the CA's certificate is in the volume, and the health check works."""
    name, address = container("-e", "MOCK_IDP_TLS=1", "--tmpfs", "/tmp")
    _wait_until_healthy(name)
    authority = tmp_path / "ca.pem"
    authority.write_text(docker("exec", name, "cat", "/tls/mock-idp-ca.pem"))

    trusted = ssl.create_default_context(cafile=authority)
    assert httpx.get(f"https://{address}/_mock/health", verify=trusted).json() == {"status": "ok"}
