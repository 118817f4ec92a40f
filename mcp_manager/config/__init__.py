"""The configuration of servers and manager: its structs, and reading it from JSON, mappings and files."""

from __future__ import annotations

from mcp_manager.config._url import redact_url, split_nameserver
from mcp_manager.config.access import AllowConfig, ClientAuthConfig, ClientLimitConfig
from mcp_manager.config.admin import AdminConfig
from mcp_manager.config.audit import AuditConfig, PinsConfig
from mcp_manager.config.auth import AuthConfig
from mcp_manager.config.health import BreakerConfig, HealthConfig, RestartConfig
from mcp_manager.config.issuers import IssuerConfig
from mcp_manager.config.load import load_manager_config
from mcp_manager.config.manager import ManagerConfig
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.parse import check_server_config, parse_server_config, validate_server_id
from mcp_manager.config.rates import RateConfig, RetryBudgetConfig
from mcp_manager.config.resilience import (
    BalancingConfig,
    DiscoveryConfig,
    FallbackConfig,
    HedgeConfig,
    LimitsConfig,
    RetryConfig,
)
from mcp_manager.config.resume import ResumeConfig
from mcp_manager.config.serve import ServeConfig, ViewConfig
from mcp_manager.config.server_credentials import ServerCredentialsConfig
from mcp_manager.config.telemetry import TelemetryConfig
from mcp_manager.config.tls import TlsConfig
from mcp_manager.config.tools import ToolsConfig
from mcp_manager.config.traces import TracesConfig

__all__ = [
    "AdminConfig",
    "AllowConfig",
    "AuditConfig",
    "AuthConfig",
    "BalancingConfig",
    "BreakerConfig",
    "ClientAuthConfig",
    "ClientLimitConfig",
    "DiscoveryConfig",
    "FallbackConfig",
    "HealthConfig",
    "HedgeConfig",
    "IssuerConfig",
    "LimitsConfig",
    "ManagerConfig",
    "PinsConfig",
    "RateConfig",
    "RestartConfig",
    "ResumeConfig",
    "RetryBudgetConfig",
    "RetryConfig",
    "ServeConfig",
    "ServerConfig",
    "ServerCredentialsConfig",
    "TelemetryConfig",
    "TlsConfig",
    "ToolsConfig",
    "TracesConfig",
    "ViewConfig",
    "check_server_config",
    "load_manager_config",
    "parse_server_config",
    "redact_url",
    "split_nameserver",
    "validate_server_id",
]
