"""What operators look at."""

from __future__ import annotations

from django.urls import path

from mcp_fleet import views

urlpatterns = [
    path("ready", views.ready),
    path("servers", views.servers),
    path("metrics", views.metrics),
]
