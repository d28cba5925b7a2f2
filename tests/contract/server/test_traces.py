"""Traces of exchanges: the spans a collector receives; no exchange waits for it. Needs the extra `otel`."""

import json
import re
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from kit.processes import BIN, Served, clean_environment, free_port, run, wait_until
from kit.provider import EXCHANGE, POLICIES, REPOSITORY
from sentryagent_idp import traces
from sentryagent_idp.errors import DatabaseUnavailable
from sentryagent_idp.use_cases.exchange import Exchange

NAME = f"POST {EXCHANGE}"
PARTS = ["verify", "decide", "keep"]


@pytest.fixture
def collected(provider):
    """Takes the spans that the provider has ended."""
    return _collect(provider.app)


def _collect(app):
    """Trace an application; return a function that takes the spans ended since its last call."""
    exporter = InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    traces.install(app, tracers.get_tracer("test"))

    def take():
        spans = exporter.get_finished_spans()
        exporter.clear()
        return spans

    return take


def _root(spans):
    (root,) = [span for span in spans if span.name == NAME]
    return root


def _children(spans, parent):
    """The names of a span's children, in order of their start."""
    found = [span for span in spans if span.parent and span.parent.span_id == parent.context.span_id]
    return [span.name for span in sorted(found, key=lambda it: it.start_time)]


def test_an_exchange_is_verified_decided_and_kept(provider, collected):
    """A first exchange, which pins its policy, decides in the transaction that keeps it; later ones before it."""
    provider.policy()
    provider.exchange()
    first = collected()
    provider.exchange()
    collected()
    provider.exchange()
    later = collected()

    assert _children(later, _root(later)) == PARTS
    assert _children(first, _root(first)) == PARTS
    (kept,) = [span for span in first if span.name == "keep"]
    assert _children(first, kept) == ["decide"]


def test_a_span_has_what_the_log_has(provider, collected):
    """A span has the route, status and request id under OpenTelemetry's names, and nothing of the token."""
    provider.policy()
    answer = provider.exchange()

    span = _root(collected())

    assert span.kind is SpanKind.SERVER
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == {
        "http.request.method": "POST",
        "http.route": EXCHANGE,
        "http.response.status_code": 200,
        "sentryagent.request_id": answer.headers["X-Request-Id"],
    }


def test_a_refusal_is_described_in_words_of_ours(provider, collected):
    """A span has the refusal's code and reason, but not its message, which quotes tokens and policies."""
    provider.policy(branch="main")
    provider.exchange(provider.github_token(ref="refs/heads/dev"))
    refused = collected()
    provider.exchange(provider.github_token(fault="expired"))
    expired = collected()

    assert _root(refused).attributes["sentryagent.refusal.code"] == "BRANCH_NOT_PERMITTED"
    assert _root(refused).attributes["http.response.status_code"] == 403
    assert _root(expired).attributes["sentryagent.refusal.reason"] == "expired"
    assert _children(expired, _root(expired)) == ["verify"]
    for span in (*refused, *expired):
        assert (span.status.status_code, list(span.events)) == (StatusCode.UNSET, [])
        assert "octo-org" not in span.to_json()


def test_a_failure_of_ours_is_an_error(provider, collected, monkeypatch):
    """A 5xx is an error and a 4xx is not, as in OpenTelemetry's conventions."""

    def fail(*_):
        raise DatabaseUnavailable("The database is not responding; try again in 2 s.", retry_after=2)

    provider.policy()
    monkeypatch.setattr(provider.store, "read", fail)
    assert provider.exchange().status_code == 503

    span = _root(collected())

    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "SERVICE_UNAVAILABLE"


def test_nothing_but_exchanges_is_traced(provider, collected):
    """Probes arrive every few seconds, so only exchanges are traced."""
    provider.http.get("/health")
    provider.http.get(EXCHANGE)
    provider.get(POLICIES)

    assert collected() == ()


@pytest.fixture
def proxied(provider):
    """Exchanges with a `traceparent` from a peer, trusting proxies of 192.0.2.0/24; returns the spans."""
    behind = provider.with_settings(TRUSTED_PROXIES="192.0.2.0/24")
    collected = _collect(behind.app)
    behind.policy()

    def exchange(peer, traceparent):
        behind.http.post(
            EXCHANGE,
            json={"token": behind.github_token()},
            headers={"traceparent": traceparent},
            environ_base={"REMOTE_ADDR": peer},
        )
        return collected()

    return exchange


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_the_span_of_a_trusted_proxy_is_the_parent(proxied):
    """Gateway and provider are in one trace."""
    span = _root(proxied("192.0.2.7", f"00-{TRACE}-{PARENT}-01"))

    assert (span.context.trace_id, span.parent.span_id) == (int(TRACE, 16), int(PARENT, 16))


def test_a_trusted_proxy_may_choose_not_to_record(proxied):
    """If a trusted proxy does not sample a trace, neither does the provider."""
    assert proxied("192.0.2.7", f"00-{TRACE}-{PARENT}-00") == ()


@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_stranger_chooses_nothing(proxied, flags):
    """A stranger chooses neither trace nor sampling: an attacker would keep its exchanges unrecorded."""
    span = _root(proxied("198.51.100.1", f"00-{TRACE}-{PARENT}-{flags}"))

    assert span.parent is None
    assert span.context.trace_id != int(TRACE, 16)


@pytest.mark.parametrize(
    "header", ["", "00", f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01"]
)
def test_what_is_malformed_counts_as_absent(proxied, header):
    """A malformed `traceparent` starts a new trace."""
    assert _root(proxied("192.0.2.7", header)).parent is None


class Collector(ThreadingHTTPServer):
    """An OTLP receiver on 127.0.0.1 that responds with `status`; with 0 it does not respond until the test ends."""

    daemon_threads = True

    def __init__(self, status=200):
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.status, self.bodies, self.released = status, [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def spans(self):
        """All spans received so far."""
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    def resource(self):
        """The resource attributes of the sender."""
        sent = ExportTraceServiceRequest.FromString(self.bodies[0]).resource_spans[0].resource
        return {it.key: it.value.string_value for it in sent.attributes}


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.server.status:
            self.server.released.wait()
        self.send_response(self.server.status or 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Log nothing: pytest would show it as stderr."""


@contextmanager
def collector(status=200):
    with Collector(status) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


@contextmanager
def traced(folder, mock_idp, endpoint, **variables):
    """A provider process that sends its spans to `endpoint` and trusts this machine as its proxy."""
    environ = clean_environment(GITHUB_ISSUER=mock_idp.issuer, TRUSTED_PROXIES="127.0.0.1", TRACES="on")
    environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20", **variables}
    with Served(folder / "log", environ, "--workers", 1, cwd=folder) as served:
        with served.client(headers=served.admin) as api:
            api.post(POLICIES, json={"repository": REPOSITORY}).raise_for_status()
        yield served


def _exchange(served, mock_idp, **headers):
    with served.client() as client:
        return client.post(EXCHANGE, json={"token": mock_idp.mint(audience=served.url)}, headers=headers)


def test_exchanges_at_one_moment_do_not_mix(tmp_path, mock_idp):
    """Concurrent exchanges on one loop keep their own parents and child spans, even if they commit together."""
    calls = [(f"{number:032x}", f"{number:016x}") for number in range(1, 41)]
    with collector() as receiver, traced(tmp_path, mock_idp, receiver.url) as served:
        assert _exchange(served, mock_idp, traceparent=f"00-{'f' * 32}-{'f' * 16}-01").status_code == 200
        with ThreadPoolExecutor(16) as pool:
            headers = [f"00-{trace}-{parent}-01" for trace, parent in calls]
            answers = pool.map(lambda it: _exchange(served, mock_idp, traceparent=it), headers)
            assert {it.status_code for it in answers} == {200}
        wait_until(lambda: sum(it.name == NAME for it in receiver.spans()) == 41, "the last span")

    by_trace = defaultdict(list)
    for span in receiver.spans():
        by_trace[span.trace_id.hex()].append(span)
    for trace, parent in calls:
        (root,) = [span for span in by_trace[trace] if span.name == NAME]
        assert root.parent_span_id.hex() == parent
        parts = sorted(
            (it for it in by_trace[trace] if it is not root), key=lambda it: it.start_time_unix_nano
        )
        assert {span.parent_span_id for span in parts} == {root.span_id}
        # An exchange with an outdated snapshot decides, and perhaps keeps, again.
        assert re.fullmatch("verify( decide( keep)?)*", " ".join(span.name for span in parts))
        assert parts[-1].name == "keep"
    assert receiver.resource()["service.name"] == "sentryagent-idp"
    text = b"".join(receiver.bodies)
    assert not [word for word in (b"octo-org", b"eyJ", b"refs/heads") if word in text]


def test_the_log_names_the_trace(tmp_path, mock_idp):
    """A request's log line has the id of its trace."""
    with collector() as receiver, traced(tmp_path, mock_idp, receiver.url, OTEL_SERVICE_NAME="idp") as served:
        answer = _exchange(served, mock_idp)
        wait_until(lambda: any(it.name == NAME for it in receiver.spans()), "the span")
    lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    (line,) = [it for it in lines if it.get("requestId") == answer.headers["X-Request-Id"]]
    (root,) = [span for span in receiver.spans() if span.name == NAME]

    assert line["traceId"] == root.trace_id.hex()
    assert receiver.resource()["service.name"] == "idp"


@pytest.mark.parametrize("status", [None, 0, 503])
def test_a_collector_that_fails_fails_no_exchange(tmp_path, mock_idp, status):
    """With a missing, silent or failing collector, tokens are issued, a warning is logged, and the process exits."""
    with collector(status or 0) as receiver:
        endpoint = receiver.url if status is not None else f"http://127.0.0.1:{free_port()}"
        with traced(tmp_path, mock_idp, endpoint) as served:
            answers = [_exchange(served, mock_idp).status_code for _ in range(5)]
            if status is None or status:
                wait_until(lambda: "spans could not be sent" in served.log.read_text(), "the warning")
            else:
                wait_until(lambda: receiver.bodies, "the collector")
                answers += [_exchange(served, mock_idp).status_code for _ in range(5)]
            code = served.stop()

    lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    assert (set(answers), code) == ({200}, 0)
    # The warning is logged once a minute, and a minute may end in between.
    assert sum(it["event"].startswith("spans could not be sent") for it in lines) <= 2


def test_a_worker_does_not_wait_for_its_last_spans(monkeypatch):
    """A worker waits briefly for the collector, not for the library's half minute."""
    began, released, ended = threading.Event(), threading.Event(), threading.Event()

    def shutdown():
        began.set()
        released.wait(20)
        ended.set()

    made = traces.Traces(InMemorySpanExporter())
    monkeypatch.setattr(traces, "_FLUSH_SECONDS", 0.01)
    with monkeypatch.context() as stuck:
        stuck.setattr(made._provider, "shutdown", shutdown)
        made.end()
        assert began.wait(20)
        assert not ended.is_set()
        released.set()
    made._provider.shutdown()


LOADED = """
import sys
from sentryagent_idp import serve, app
from sentryagent_idp.cli import main
sys.exit("opentelemetry" in sys.modules or "sentryagent_idp.traces" in sys.modules)
"""


def test_traces_cost_nothing_while_they_are_off(provider):
    """With traces off, the library is not loaded and the plain `Exchange` is used."""
    assert run(sys.executable, "-c", LOADED).returncode == 0
    assert type(provider.exchange_use_case) is Exchange


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from sentryagent_idp.cli.main import main
main()
"""


def test_the_extra_is_named_where_it_is_missing(tmp_path):
    """If the extra is missing, one line names it before any file is created."""
    done = run(sys.executable, "-c", WITHOUT, "serve", cwd=tmp_path, env=clean_environment(TRACES="on"))

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "SENTRYAGENT_TRACES: opentelemetry" in done.stderr
    assert "install sentryagent-idp[otel]" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ("OTEL_TRACES_SAMPLER", "some"),
        ("OTEL_TRACES_SAMPLER_ARG", "1%"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_SDK_DISABLED", "maybe"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[collector"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=s3cret\nx"),
        ("OTEL_RESOURCE_ATTRIBUTES", "production"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/nonexistent"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path, variable, value):
    """The library would use a default instead, for example all traces and not one in a hundred."""
    environ = clean_environment(TRACES="on") | {variable: value}
    done = run(BIN / "sentryagent-idp", "serve", cwd=tmp_path, env=environ)

    assert done.returncode == 2
    assert done.stderr.startswith(f"sentryagent-idp: {variable}")
    assert done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    ],
)
def test_what_the_library_refuses_ends_the_start(tmp_path, variable):
    """An error of the library ends the start; otherwise the workers would crash again and again."""
    environ = clean_environment(TRACES="on") | {variable: "many"}
    done = run(BIN / "sentryagent-idp", "serve", cwd=tmp_path, env=environ)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("sentryagent-idp: OpenTelemetry: ")
    assert "many" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:password@[2001:db8::1]:4318/otlp"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2.5"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.0"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2048"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b==, x = y"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=production,team=a b"),
        ("OTEL_SDK_DISABLED", "TRUE"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", __file__),
    ],
)
def test_good_variables(variable, value):
    """Valid variables are accepted; an empty one counts as unset, as in OpenTelemetry."""
    traces.check({variable: value})
