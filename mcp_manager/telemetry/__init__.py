"""OpenTelemetry: metrics read from the compiled core, and traces of some calls, exported over OTLP."""

from __future__ import annotations

from mcp_manager.telemetry.pipeline import Telemetry, open_telemetry

__all__ = ["Telemetry", "open_telemetry"]
