"""An application that calls tools."""

from __future__ import annotations

from django.apps import AppConfig


class CalculatorConfig(AppConfig):
    """The application of this project; put yours in its place."""

    name = "calculator"
