"""The URLs of the project."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [
    path("", include("mcp_fleet.urls")),
    path("", include("arithmetic.urls")),
]
