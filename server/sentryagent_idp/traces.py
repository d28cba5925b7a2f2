"""OpenTelemetry traces of exchanges, an extra: only this module imports its libraries, and only if traces are on.

An exchange is one span with the children `verify`, `decide` and `keep`. `install` wraps the existing objects, so that
traces cost nothing while they are off. The attributes of spans are in the request log, too.
Sources: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (names),
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ (the variables `OTEL_…`).
"""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path

import structlog
from flask import Flask, Response, g, request
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bind_contextvars

from sentryagent_idp.api.requests import context
from sentryagent_idp.api.use_cases import EXTENSION, UseCases, use_cases
from sentryagent_idp.concurrency.group_commit import GroupCommit, PendingExchange
from sentryagent_idp.concurrency.policy_snapshot import PolicySnapshot
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.trust_policy import Decision
from sentryagent_idp.errors import ConfigurationError, InvalidOidcToken, ServiceError
from sentryagent_idp.ports import Clock, Store
from sentryagent_idp.runtime.rate_limit import PerMinute
from sentryagent_idp.use_cases.exchange import Exchange, Exchanged, ExchangeRequest

log = structlog.get_logger()

_SERVICE = "sentryagent-idp"
_EXCHANGE = "exchange.exchange"
_CALLERS_SPAN = ("traceparent", "tracestate")
"""Header fields (https://www.w3.org/TR/trace-context/)."""
_FLUSH_SECONDS = 3.0
"""How long a worker that ends waits for the collector: a fraction of the time that in-flight requests have."""

_QUEUE, _BATCH = "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_URL = (
    r"https?://([^\s/@]*@)?(\[[0-9a-f:.]+\]|[^\s/:@\[\]]+)(:[0-9]{1,5})?(/\S*)?",
    "a URL such as http://127.0.0.1:4318",
)
_PROTOCOL = ("http/protobuf", "http/protobuf, the only protocol of the provider")
_SECONDS = (r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]+)?", "a number of seconds above 0")
_COUNT = (r"[1-9][0-9]{0,8}", "a positive whole number")
_COMPRESSION = ("none|gzip|deflate", "one of none, gzip, deflate")
_PAIRS = (
    r"\s*[^\s,=]+\s*=[^,\r\n]*(,\s*[^\s,=]+\s*=[^,\r\n]*)*",
    "NAME=VALUE pairs separated by commas, with special characters in values percent-encoded",
)
_FORMS = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": _URL,
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": _URL,
    "OTEL_EXPORTER_OTLP_PROTOCOL": _PROTOCOL,
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": _PROTOCOL,
    "OTEL_EXPORTER_OTLP_TIMEOUT": _SECONDS,
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": _SECONDS,
    "OTEL_EXPORTER_OTLP_COMPRESSION": _COMPRESSION,
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": _COMPRESSION,
    "OTEL_EXPORTER_OTLP_HEADERS": _PAIRS,
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": _PAIRS,
    "OTEL_RESOURCE_ATTRIBUTES": _PAIRS,
    "OTEL_BSP_SCHEDULE_DELAY": _COUNT,
    "OTEL_BSP_EXPORT_TIMEOUT": _COUNT,
    _QUEUE: _COUNT,
    _BATCH: _COUNT,
    "OTEL_TRACES_SAMPLER": (
        "(parentbased_)?(always_on|always_off|traceidratio)",
        "a sampler such as parentbased_traceidratio",
    ),
    "OTEL_TRACES_SAMPLER_ARG": (r"1(\.0+)?|0?\.[0-9]+|0", "a ratio from 0 to 1"),
    "OTEL_SDK_DISABLED": ("true|false", "one of true, false"),
}
"""Variables whose wrong values the library replaces by a default, for example all traces instead of one in a hundred."""
_FILES = tuple(
    f"OTEL_EXPORTER_OTLP_{name}"
    for file in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
    for name in (file, f"TRACES_{file}")
)


def check(environ: Mapping[str, str]) -> None:
    """Check the OpenTelemetry variables; raises `ConfigurationError` for the first wrong one."""
    for name, (form, advice) in _FORMS.items():
        value = environ.get(name)
        if value and not re.fullmatch(form, value, re.IGNORECASE):
            raise ConfigurationError(f"{name}: it must be {advice}")
    if int(environ.get(_BATCH) or 512) > int(environ.get(_QUEUE) or 2048):
        raise ConfigurationError(f"{_BATCH} (512 if unset) exceeds {_QUEUE} (2048 if unset); reduce it")
    _check_files(environ)
    try:
        SpanLimits()
        OTLPSpanExporter()
    except (ValueError, RuntimeError, ImportError) as error:
        raise ConfigurationError(f"OpenTelemetry: {error}") from error


def _check_files(environ: Mapping[str, str]) -> None:
    """Check that the files can be read: the library would find out only with the first spans."""
    for name in _FILES:
        value = environ.get(name)
        try:
            if value:
                Path(value).open("rb").close()
        except OSError as error:
            raise ConfigurationError(
                f"{name}: {value} cannot be read ({error.strerror}); name a file in PEM form"
            ) from error


class Traces:
    """The tracer of this process, and the thread that sends its spans, for which no exchange waits.

    Spans that do not fit into the queue are dropped. Create it after the last fork, and check the variables first.
    """

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        _limit_library_warnings()
        # `Resource.create(named)` would override OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
        named = {"service.name": _SERVICE, "service.version": version(_SERVICE)}
        resource = Resource.create(named | dict(OTELResourceDetector().detect().attributes))
        # Workers end without running `atexit` functions.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self.tracer: Tracer = self._provider.get_tracer(_SERVICE, version(_SERVICE))

    def end(self) -> None:
        """Send the queued spans, for a few seconds at most: an unreachable collector must not delay a worker's end."""
        thread = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        thread.start()
        thread.join(_FLUSH_SECONDS)


class _LibraryWarnings(logging.Handler):
    """Logs the library's warnings, one per minute: a collector may be unreachable for days."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._limit = PerMinute(1, what="minute")

    def emit(self, record: logging.LogRecord) -> None:
        """Log a warning, unless this minute has had one."""
        if self._limit.count("spans") is None:
            log.warning("spans could not be sent, or were dropped", reason=record.getMessage())


def _limit_library_warnings() -> None:
    library = logging.getLogger("opentelemetry")
    library.handlers, library.propagate = [_LibraryWarnings()], False


def install(app: Flask, tracer: Tracer) -> None:
    """Trace the exchanges of an application from here on."""
    made: UseCases = app.extensions[EXTENSION]
    exchange = made.exchange
    commit = _TracedCommit(exchange.store, exchange.clock, made.metrics.transaction, tracer)
    parts = {it.name: getattr(exchange, it.name) for it in fields(Exchange)} | {"group_commit": commit}
    app.extensions[EXTENSION] = replace(made, exchange=_TracedExchange(**parts, tracer=tracer))

    def begin() -> None:
        if request.endpoint == _EXCHANGE:
            _begin(tracer)

    app.before_request(begin)
    app.after_request(_end)


def _begin(tracer: Tracer) -> None:
    span = tracer.start_span(
        f"{request.method} {request.url_rule}",
        _caller(),
        SpanKind.SERVER,
        {
            "http.request.method": request.method,
            "http.route": str(request.url_rule),
            "sentryagent.request_id": context().request_id,
        },
    )
    # Each request on the loop is a greenlet, which has its own context variables.
    g.span, g.before_span = span, attach(set_span_in_context(span, Context()))
    if span.is_recording():
        bind_contextvars(traceId=format_trace_id(span.get_span_context().trace_id))


def _caller() -> Context:
    """The caller's span, only from a trusted proxy: a stranger could choose which exchanges are recorded."""
    if not use_cases().client_addresses.is_proxy(request.environ.get("REMOTE_ADDR", "")):
        return Context()
    carrier = {name: request.headers[name] for name in _CALLERS_SPAN if name in request.headers}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def _end(response: Response) -> Response:
    span: Span | None = g.pop("span", None)
    if span is not None:
        _describe(span, response.status_code, g.get("refusal"))
        span.end()
        detach(g.before_span)
    return response


def _describe(span: Span, status: int, refusal: ServiceError | None) -> None:
    """Record how the request ended, in the provider's own words only: messages may quote tokens and policies."""
    span.set_attribute("http.response.status_code", status)
    if refusal is not None:
        span.set_attribute("sentryagent.refusal.code", refusal.code)
    if isinstance(refusal, InvalidOidcToken):
        span.set_attribute("sentryagent.refusal.reason", refusal.reason)
    if status >= 500:
        span.set_attribute("error.type", refusal.code if refusal else str(status))
        span.set_status(StatusCode.ERROR)


def _part(tracer: Tracer, name: str) -> AbstractContextManager[Span]:
    """Start a child of the current span; it records no exceptions, because a message may quote the token."""
    return tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False)


class _TracedCommit(GroupCommit):
    """A group commit with a span for each exchange, which includes the wait for the previous group."""

    def __init__(
        self, store: Store, clock: Clock, observe: Callable[[str, float], object], tracer: Tracer
    ) -> None:
        super().__init__(store, clock, observe)
        self._tracer = tracer

    def commit(self, exchange: PendingExchange) -> bool:
        """Store the exchange, in a span."""
        with _part(self._tracer, "keep"):
            return super().commit(exchange)


@dataclass(frozen=True)
class _TracedExchange(Exchange):
    """The exchange with a span around each of its parts."""

    tracer: Tracer

    def _verify(self, request: ExchangeRequest, context: RequestContext) -> WorkflowIdentity:
        with _part(self.tracer, "verify"):
            return super()._verify(request, context)

    def _decision(
        self, snapshot: PolicySnapshot, identity: WorkflowIdentity, request: ExchangeRequest
    ) -> Decision:
        with _part(self.tracer, "decide"):
            return super()._decision(snapshot, identity, request)

    def _in_one_transaction(
        self, identity: WorkflowIdentity, request: ExchangeRequest, context: RequestContext
    ) -> Exchanged:
        with _part(self.tracer, "keep"):
            return super()._in_one_transaction(identity, request, context)
