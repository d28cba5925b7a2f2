"""`/health`, `/ready` and `/metrics`: for the machines that run the provider."""

from flask import Blueprint, Response, jsonify

from sentryagent_idp.api.use_cases import services
from sentryagent_idp.runtime.metrics import CONTENT_TYPE

bp = Blueprint("operations", __name__)


@bp.get("/health")
def health() -> dict[str, str]:
    """Whether the process answers; nothing else is asked."""
    return {"status": "ok"}


@bp.get("/ready")
def ready() -> Response:
    """Whether requests can be served: database, migrations, signing key.

    GitHub's keys are shown, but never make it 503: exchanges with a held key go on while GitHub is down.
    """
    report = services().readiness.report()
    response = jsonify(report.as_json())
    response.status_code = 200 if report.is_ready else 503
    return response


@bp.get("/metrics")
def metrics() -> Response:
    """The numbers of all workers of this replica, for Prometheus."""
    return Response(services().metrics.page(), content_type=CONTENT_TYPE)
