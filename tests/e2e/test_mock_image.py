"""The mock's container image in the real Docker engine, built by the classic builder."""

import os
import ssl
import subprocess
import time
from uuid import uuid4

import httpx
import pytest

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

HEALTHY_SECONDS = 15


def docker(*arguments, **options):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(checkout):
    """The image, built as its manual says."""
    tag = f"mock-idp-test:{uuid4().hex}"
    with subprocess.Popen(["git", "archive", "HEAD"], cwd=checkout, stdout=subprocess.PIPE) as archive:
        words = ("build", "-q", "-t", tag, "-f", "deploy/mock/Dockerfile", "-")
        docker(*words, stdin=archive.stdout, env=os.environ | {"DOCKER_BUILDKIT": "0"})
    yield tag
    docker("rmi", "-f", tag)


@pytest.fixture
def container(image):
    """Start a container with these variables; its name and the URL at which this machine reaches it."""
    names = []

    def start(*words):
        name = f"mock-idp-test-{uuid4().hex[:12]}"
        names.append(name)
        docker(
            "run",
            "-d",
            "--rm",
            "--read-only",
            "--cap-drop=ALL",
            "--name",
            name,
            "-p",
            "127.0.0.1::3001",
            *words,
            image,
        )
        return name, docker("port", name, "3001").splitlines()[0]

    yield start
    for name in names:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True)


def _wait_until_healthy(name):
    deadline = time.monotonic() + HEALTHY_SECONDS
    status = ""
    while status != "healthy":
        assert time.monotonic() < deadline, f"still {status}: {docker('logs', name)}"
        status = docker("inspect", "-f", "{{.State.Health.Status}}", name)
        time.sleep(0.1)


def test_one_issuer_for_the_host_and_for_other_containers(container):
    """Healthy, no root, nothing writable; the `iss` is the name that the services of a network use."""
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
    """SIGTERM reaches the process, and its exit code is 0."""
    name, _ = container()
    _wait_until_healthy(name)
    with subprocess.Popen(["docker", "wait", name], stdout=subprocess.PIPE, text=True) as waiting:
        docker("kill", "--signal=TERM", name)
        code, _ = waiting.communicate(timeout=15)

    assert code.strip() == "0"


def test_tls_works_in_a_container_too(container, tmp_path):
    """The authority's certificate lies in the volume, and the health check knows TLS."""
    name, address = container("-e", "MOCK_IDP_TLS=1", "--tmpfs", "/tmp")
    _wait_until_healthy(name)
    authority = tmp_path / "ca.pem"
    authority.write_text(docker("exec", name, "cat", "/tls/mock-idp-ca.pem"))

    trusted = ssl.create_default_context(cafile=authority)
    assert httpx.get(f"https://{address}/_mock/health", verify=trusted).json() == {"status": "ok"}
