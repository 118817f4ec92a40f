"""The URLs of this application."""

from __future__ import annotations

from django.urls import path

from arithmetic import views

urlpatterns = [
    path("add", views.add),
    path("async/add", views.add_async),
    path("wait", views.wait),
]
