"""Corporate networks: a proxy, a private root certificate, or both.

The provider is behind a TLS terminator with a certificate of this test's CA. Only the test's proxy resolves the name
idp.example.test, so a call that reaches the provider under that name has passed through the proxy.
"""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from threading import Thread
from urllib.parse import urlsplit

import pytest
import trustme

from kit.processes import free_port, wait_until

NAME = "idp.example.test"
# A loopback address other than the proxy's.
ADDRESS = "127.0.0.2"
START_SECONDS = 10
STOP_SECONDS = 5

Serve = Callable[[StreamReader, StreamWriter], Awaitable[None]]


async def copy(reader: StreamReader, writer: StreamWriter) -> None:
    """Copy bytes until one side ends."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def forward(reader: StreamReader, writer: StreamWriter, host: str, port: int) -> None:
    """Relay a client's connection to another server."""
    upstream_reader, upstream_writer = await asyncio.open_connection(host, port)
    await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer))


async def head_of(reader: StreamReader) -> str:
    """Read a request's head and return its first line."""
    return (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[0]


class Lan:
    """The servers of one test, in an event loop in a separate thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def listen(self, address: str, serve: Serve, tls: ssl.SSLContext | None = None) -> int:
        """Serve the connections to a free port of an address; return the port."""
        starting = asyncio.start_server(serve, address, 0, ssl=tls)
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(START_SECONDS)
        self._servers.append(server)
        return server.sockets[0].getsockname()[1]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        self._loop.close()

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@pytest.fixture
def lan():
    """A network to which a test adds servers."""
    lan = Lan()
    yield lan
    lan.close()


@pytest.fixture(scope="module")
def authority():
    """The private CA of a network."""
    return trustme.CA()


@pytest.fixture
def root_pem(authority):
    """The CA's root certificate as PEM text, as in a workflow's input."""
    return authority.cert_pem.bytes().decode()


@pytest.fixture
def tls_port(lan, authority, provider):
    """The provider's TLS port on 127.0.0.2, with a certificate for its name and address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME, ADDRESS).configure_cert(context)
    upstream = urlsplit(provider.url)

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await forward(reader, writer, upstream.hostname, upstream.port)

    return lan.listen(ADDRESS, serve, context)


@dataclass
class Proxy:
    """A proxy and the requests that it received."""

    url: str = ""
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def proxy(lan, tls_port):
    """A proxy that connects every request to the provider."""
    proxy = Proxy()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        proxy.requests.append(await head_of(reader))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await forward(reader, writer, ADDRESS, tls_port)

    proxy.url = f"http://127.0.0.1:{lan.listen('127.0.0.1', serve)}"
    return proxy


@pytest.fixture
def strict_proxy(lan):
    """A proxy that refuses the password."""
    proxy = Proxy()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        proxy.requests.append(await head_of(reader))
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    proxy.url = f"http://proxy-user:proxy-password@127.0.0.1:{lan.listen('127.0.0.1', serve)}"
    return proxy


@pytest.fixture
def tinyproxy(tmp_path, proxy):
    """The URL of a real proxy, which sends everything on to `proxy`; skips the test if it is not installed."""
    program = shutil.which("tinyproxy")
    if program is None:
        pytest.skip("no tinyproxy on PATH (Debian: tinyproxy-bin)")
    port = free_port()
    settings = tmp_path / "tinyproxy.conf"
    upstream = proxy.url.removeprefix("http://")
    settings.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 30\nAllow 127.0.0.1\nUpstream http {upstream}\n"
    )
    running = subprocess.Popen([program, "-d", "-c", settings], stdout=subprocess.DEVNULL)
    try:
        wait_until(
            lambda: socket.create_connection(("127.0.0.1", port)), "tinyproxy", process=running
        ).close()
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()


@pytest.fixture
def issue(run_action, provider, trusted_agent):
    """Run issue-token against a URL, with the provider's own URL as the audience."""

    def issue(api_url: str, **inputs: str):
        named = {name.replace("_", "-"): value for name, value in inputs.items()}
        given = {"api-url": api_url, "agent-id": trusted_agent, "audience": provider.url, "timeout": "20"}
        return run_action("issue-token", given | named)

    return issue


def test_a_private_certificate_is_refused_without_its_root(issue, tls_port):
    """An untrusted certificate fails the step at once, and the annotation names the input that helps."""
    run = issue(f"https://{ADDRESS}:{tls_port}")

    assert run.exit_code == 1
    assert run.outputs["error-code"] == "TLS_ERROR"
    assert run.outputs["retryable"] == "false"
    assert "`ca-certificate`" in run.only_annotation()["message"]


def test_a_private_root_is_trusted_from_the_input(issue, tls_port, root_pem, provider):
    """The main step and the post step trust the certificates in `ca-certificate`."""
    run = issue(f"https://{ADDRESS}:{tls_port}", ca_certificate=root_pem)

    assert not provider.is_active(run.token())
    assert "The access token is revoked." in run.log


def test_a_private_root_is_trusted_from_ssl_cert_file(
    issue, tls_port, root_pem, tmp_path, environment, monkeypatch
):
    """SSL_CERT_FILE is honoured, and the log says so because an earlier step could have set it."""
    file = tmp_path / "root.pem"
    file.write_text(root_pem)
    monkeypatch.setitem(environment, "SSL_CERT_FILE", str(file))

    run = issue(f"https://{ADDRESS}:{tls_port}")

    assert run.outcome == "success", run.log
    assert "SSL_CERT_FILE is set: its certificates are trusted." in run.log


def test_a_certificate_of_another_name_is_refused(issue, proxy, root_pem, environment, monkeypatch):
    """A certificate of a trusted root is refused for another host name."""
    monkeypatch.setitem(environment, "HTTPS_PROXY", proxy.url)

    run = issue("https://other.example.test", ca_certificate=root_pem)

    assert run.exit_code == 1
    assert run.outputs["error-code"] == "TLS_ERROR"
    assert "other.example.test" in run.only_annotation()["message"]


def test_proxy_and_private_root_work_together(issue, proxy, root_pem, provider, environment, monkeypatch):
    """Every call to the provider goes through HTTPS_PROXY; the ID token's loopback endpoint does not."""
    monkeypatch.setitem(environment, "HTTPS_PROXY", proxy.url)

    run = issue(f"https://{NAME}", ca_certificate=root_pem)

    assert not provider.is_active(run.token())
    # The main step and the post step open one connection each.
    assert proxy.requests == [f"CONNECT {NAME}:443 HTTP/1.1"] * 2
    assert "HTTPS_PROXY is set: its proxy is used, except for loopback and the hosts in NO_PROXY." in run.log


def test_no_proxy_goes_past_the_proxy(issue, proxy, root_pem, environment, monkeypatch):
    """A host in NO_PROXY is connected to directly: without the proxy, nobody resolves its name."""
    monkeypatch.setitem(environment, "HTTPS_PROXY", proxy.url)
    monkeypatch.setitem(environment, "NO_PROXY", f"other.example,{NAME}")

    run = issue(f"https://{NAME}", ca_certificate=root_pem, timeout="2")

    assert run.outputs["error-code"] == "PROVIDER_UNREACHABLE"
    assert NAME in run.only_annotation()["message"]
    assert proxy.requests == []


def test_loopback_goes_past_the_proxy(issue, tls_port, root_pem, proxy, environment, monkeypatch):
    """No proxy could reach an address of the runner's own machine."""
    monkeypatch.setitem(environment, "HTTPS_PROXY", proxy.url)

    run = issue(f"https://{ADDRESS}:{tls_port}", ca_certificate=root_pem)

    assert run.outcome == "success", run.log
    assert proxy.requests == []


def test_a_proxy_that_wants_a_password_is_final_and_shows_none(
    issue, strict_proxy, root_pem, environment, monkeypatch
):
    """A 407 is not retried, and the proxy's password is neither in the log nor in the summary."""
    monkeypatch.setitem(environment, "HTTPS_PROXY", strict_proxy.url)

    run = issue(f"https://{NAME}", ca_certificate=root_pem, on_unavailable="skip")

    assert run.exit_code == 1
    assert run.outputs["error-code"] == "PROVIDER_UNREACHABLE"
    assert run.outputs["retryable"] == "false"
    assert "the proxy responded with 407" in run.only_annotation()["message"]
    assert len(strict_proxy.requests) == 1
    assert "proxy-password" not in run.log + run.summary


def test_a_port_without_tls_is_not_blamed_on_the_certificate(issue, provider):
    """For https:// to a plain-HTTP port, the message does not recommend `ca-certificate`, which cannot help."""
    run = issue(provider.url.replace("http://", "https://"))

    assert run.outputs["error-code"] == "TLS_ERROR"
    message = run.only_annotation()["message"]
    assert "does not use TLS" in message
    assert "ca-certificate" not in message


def test_a_proxy_that_is_down_is_blamed(issue, root_pem, environment, monkeypatch):
    """If the proxy cannot be reached, the message blames the proxy and not the provider."""
    monkeypatch.setitem(environment, "HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")

    run = issue(f"https://{NAME}", ca_certificate=root_pem, timeout="2")

    assert run.outputs["error-code"] == "PROVIDER_UNREACHABLE"
    assert (
        "The proxy in HTTPS_PROXY, used for https://idp.example.test, cannot be reached"
        in (run.only_annotation()["message"])
    )


@pytest.mark.parametrize(
    "no_proxy", ["localhost,[::1]", "fd07:b51a:cc66:f0::/64", ".corp:8080, foo:*", "http://x:bad"]
)
def test_entries_of_no_proxy_that_say_nothing_are_passed_over(
    no_proxy, provider, run_action, trusted_agent, environment, monkeypatch
):
    """NO_PROXY entries that cannot be parsed, which other programs write (encode/httpx#3221), are ignored."""
    monkeypatch.setitem(environment, "NO_PROXY", no_proxy)

    assert run_action("issue-token", {"agent-id": trusted_agent}).outcome == "success"


def test_a_real_proxy_carries_the_exchange(
    issue, tinyproxy, proxy, root_pem, provider, environment, monkeypatch
):
    """The exchange and the revocation succeed with a real proxy, tinyproxy, in HTTPS_PROXY."""
    monkeypatch.setitem(environment, "HTTPS_PROXY", tinyproxy)

    run = issue(f"https://{NAME}", ca_certificate=root_pem)

    assert not provider.is_active(run.token())
    assert proxy.requests == [f"CONNECT {NAME}:443 HTTP/1.1"] * 2
