"""`/health`, `/ready` and `/metrics`: for the machines that run the provider."""

from typing import Literal

from flask import Blueprint, Response
from typing_extensions import TypedDict

from sentryagent_idp.api.description import Description
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.runtime.metrics import CONTENT_TYPE
from sentryagent_idp.use_cases.readiness import Readiness

bp = Blueprint("operations", __name__)


class Health(TypedDict):
    """The process answers."""

    status: Literal["ok"]


@bp.get("/health")
@Description((Health,), needs_database=False)
def health() -> Health:
    """Whether the process answers; nothing else is asked."""
    return {"status": "ok"}


@bp.get("/ready")
@Description((Readiness,), statuses=(200, 503), needs_database=False)
def ready() -> tuple[Readiness, int]:
    """Whether requests can be served: database, migrations, signing key.

    GitHub's keys are shown, but never make it 503: exchanges with a held key go on while GitHub is down.
    """
    readiness = use_cases().readiness.run()
    return readiness, 200 if readiness["status"] == "ready" else 503


@bp.get("/metrics")
@Description(media_type="text/plain", needs_database=False)
def metrics() -> Response:
    """The numbers of all workers of this replica, for Prometheus."""
    return Response(use_cases().metrics.page(), content_type=CONTENT_TYPE)
