"""An application that calls tools."""

from __future__ import annotations

from django.apps import AppConfig


class ArithmeticConfig(AppConfig):
    """The application of this project; put yours in its place."""

    name = "arithmetic"
