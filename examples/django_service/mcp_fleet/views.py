"""What operators look at: readiness, servers and metrics of the process that answers."""

from __future__ import annotations

from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from mcp_fleet.process import manager


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Answer 200 if each server with the tag ``required`` has a session, else 503 with those that have none."""
    missing = {view.id: view.last_error for view in manager().servers() if "required" in view.tags and not view.ready}
    return JsonResponse(
        {"is_ready": not missing, "missing": sorted(missing)},
        status=HTTPStatus.SERVICE_UNAVAILABLE if missing else HTTPStatus.OK,
    )


@require_safe
def servers(request: HttpRequest) -> JsonResponse:
    """Show the fleet: its counts, and every server. The views of the package are dicts, too."""
    return JsonResponse({"health": manager().health(), "servers": manager().servers()})


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Serve the metrics to Prometheus."""
    page = manager().scrape(request.headers.get("Accept", ""))
    return HttpResponse(page.body, content_type=page.content_type)
