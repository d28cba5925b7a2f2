"""`/health`, `/ready` and `/metrics`, for orchestrators and monitoring."""

from typing import Literal

from flask import Blueprint, Response
from typing_extensions import TypedDict

from sentryagent_idp.api.description import Description
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.runtime.metrics import CONTENT_TYPE
from sentryagent_idp.use_cases.readiness import Readiness

bp = Blueprint("operations", __name__)


class Health(TypedDict):
    """The process responds."""

    status: Literal["ok"]


@bp.get("/health")
@Description((Health,), needs_database=False)
def health() -> Health:
    """Check that the process responds, and nothing else."""
    return {"status": "ok"}


@bp.get("/ready")
@Description((Readiness,), statuses=(200, 503), needs_database=False)
def ready() -> tuple[Readiness, int]:
    """Check whether requests can be served: database, migrations, signing key.

    The state of GitHub's keys is shown but never causes a 503: while GitHub is down, exchanges with a cached key work.
    """
    readiness = use_cases().readiness.run()
    return readiness, 200 if readiness["status"] == "ready" else 503


@bp.get("/metrics")
@Description(media_type="text/plain", needs_database=False)
def metrics() -> Response:
    """Get the metrics of this replica, in Prometheus' text format."""
    return Response(use_cases().metrics.page(), content_type=CONTENT_TYPE)
