"""Views that call tools: each call has a deadline, and an error becomes a response in ``mcp_fleet.middleware``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from django import forms
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from mcp_fleet import manager, manager_async

DEADLINE_S: Final = 5.0
"""For everything together: waiting, connecting, all attempts. Clients and proxies in front should wait longer."""


class Numbers(forms.Form):
    """The parameters of a sum."""

    a = forms.FloatField()
    b = forms.FloatField()


class Duration(forms.Form):
    """The parameters of a wait."""

    seconds = forms.FloatField(min_value=0)
    deadline = forms.FloatField(min_value=0.01, max_value=DEADLINE_S, required=False)


@require_safe
def add(request: HttpRequest) -> JsonResponse:
    """Add two numbers."""
    form = Numbers(request.GET)
    if not form.is_valid():
        return refused(form)
    result = manager().call_tool("calculator", "add", form.cleaned_data, timeout=DEADLINE_S, into=float)
    return JsonResponse({"sum": result.data})


@require_safe
async def add_async(request: HttpRequest) -> JsonResponse:
    """Add two numbers; the event loop serves other requests meanwhile."""
    form = Numbers(request.GET)
    if not form.is_valid():
        return refused(form)
    fleet = await manager_async()
    result = await fleet.call_tool_async("calculator", "add", form.cleaned_data, timeout=DEADLINE_S, into=float)
    return JsonResponse({"sum": result.data})


@require_safe
async def wait(request: HttpRequest) -> JsonResponse:
    """Call a tool that takes long; past the deadline, nobody knows what became of it."""
    form = Duration(request.GET)
    if not form.is_valid():
        return refused(form)
    seconds, deadline = form.cleaned_data["seconds"], form.cleaned_data["deadline"] or DEADLINE_S
    fleet = await manager_async()
    result = await fleet.call_tool_async("calculator", "sleep", {"seconds": seconds}, timeout=deadline, into=str)
    return JsonResponse({"answer": result.data})


def refused(form: forms.Form) -> JsonResponse:
    """Answer 400 with what is wrong in the parameters."""
    return JsonResponse({"error": form.errors.get_json_data()}, status=HTTPStatus.BAD_REQUEST)
