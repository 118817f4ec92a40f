"""Manage fleets of MCP servers: deploy, call, scale, watch and heal them, from asyncio, threads or alone.

A public name is loaded with its first use (PEP 562), so that a program pays for the parts it uses: importing this
package alone imports neither asyncio nor the compiled core.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from mcp_manager._version import __version__
from mcp_manager.runtime.moved import install_finder

if TYPE_CHECKING:
    from mcp_manager.auth.caller import Caller, current_caller
    from mcp_manager.auth.redirect import LoopbackRedirect, RedirectHandler
    from mcp_manager.auth.sources import CredentialProvider
    from mcp_manager.auth.token_store import FileTokenStore, MemoryTokenStore, TokenStore
    from mcp_manager.bindings import FleetChange, PyForCaller, PyMcpManager
    from mcp_manager.calls.call_log import FlightRecord
    from mcp_manager.calls.exchange_listener import ServerMessage
    from mcp_manager.calls.for_caller import ForCaller
    from mcp_manager.config import (
        AdminConfig,
        AllowConfig,
        AuditConfig,
        AuthConfig,
        BalancingConfig,
        BreakerConfig,
        ClientAuthConfig,
        ClientLimitConfig,
        DiscoveryConfig,
        FallbackConfig,
        HealthConfig,
        HedgeConfig,
        IssuerConfig,
        LimitsConfig,
        ManagerConfig,
        PinsConfig,
        RateConfig,
        RestartConfig,
        ResumeConfig,
        RetryBudgetConfig,
        RetryConfig,
        ServeConfig,
        ServerConfig,
        ServerCredentialsConfig,
        TelemetryConfig,
        TlsConfig,
        ToolsConfig,
        TracesConfig,
        ViewConfig,
        load_manager_config,
    )
    from mcp_manager.config.fields.access import AllowFields, ClientAuthFields, ClientLimitFields
    from mcp_manager.config.fields.admin import AdminFields
    from mcp_manager.config.fields.audit import AuditFields, PinsFields
    from mcp_manager.config.fields.auth import AuthFields
    from mcp_manager.config.fields.health import BreakerFields, HealthFields, RestartFields
    from mcp_manager.config.fields.issuers import IssuerFields
    from mcp_manager.config.fields.manager import ManagerFields
    from mcp_manager.config.fields.rates import RateFields, RetryBudgetFields
    from mcp_manager.config.fields.resilience import (
        BalancingFields,
        DiscoveryFields,
        FallbackFields,
        HedgeFields,
        LimitsFields,
        RetryFields,
    )
    from mcp_manager.config.fields.resume import ResumeFields
    from mcp_manager.config.fields.serve import ServeFields, ViewFields
    from mcp_manager.config.fields.server import ServerFields
    from mcp_manager.config.fields.server_credentials import ServerCredentialsFields
    from mcp_manager.config.fields.telemetry import TelemetryFields
    from mcp_manager.config.fields.tls import TlsFields
    from mcp_manager.config.fields.tools import ToolsFields
    from mcp_manager.config.fields.traces import TracesFields
    from mcp_manager.config.memory import ServerObject
    from mcp_manager.config.sources import FleetSource, ManagerSource
    from mcp_manager.config.spec import ServerSpec
    from mcp_manager.errors import (
        AuthError,
        CallError,
        CircuitOpenError,
        ConfigError,
        ConfigProblem,
        ConnectError,
        ConnectionLostError,
        DeadlineExceededError,
        Delivery,
        InputRequiredError,
        InvalidRequestError,
        McpManagerError,
        NotReadyError,
        NotRunningError,
        OverloadedError,
        ProtocolError,
        RolloutError,
        RpcError,
        ScaleError,
        ServerExistsError,
        ServerExitedError,
        ServerNotFoundError,
        SessionLostError,
        TaskError,
        ToolError,
        ToolNotAllowedError,
        ToolNotFoundError,
        UrlElicitationRequiredError,
    )
    from mcp_manager.events.child_output import StderrLine, StderrLines
    from mcp_manager.events.records import (
        ChildExited,
        ChildStarted,
        CircuitChanged,
        ConfigApplied,
        Event,
        EventsMissed,
        ServerDeployed,
        ServerEvent,
        ServerRedeployed,
        ServerScaled,
        ServerStateChanged,
        ServerUndeployed,
        SessionLost,
        SessionReplaced,
        ToolsChanged,
    )
    from mcp_manager.events.stream import EventStream
    from mcp_manager.fleet import Applied, WatchedFile
    from mcp_manager.manager import McpManager
    from mcp_manager.observe.collector import MetricsCollector
    from mcp_manager.observe.scraping import Exposition, ExpositionStream
    from mcp_manager.observe.snapshot import FleetSnapshot, InstanceSnapshot, ManagerSnapshot, ServerSnapshot
    from mcp_manager.observe.views import ServerView
    from mcp_manager.protocol.elicitation import accept_with_defaults, elicitation_defaults
    from mcp_manager.results import (
        Annotations,
        AudioContent,
        CallToolResult,
        CompleteResult,
        Completion,
        ContentBlock,
        DiscoverResult,
        EmbeddedResource,
        GetPromptResult,
        Icon,
        ImageContent,
        Prompt,
        PromptArgument,
        PromptMessage,
        ReadResourceResult,
        Resource,
        ResourceContents,
        ResourceLink,
        ResourceTemplate,
        SamplingMessage,
        TextContent,
        Tool,
        ToolAnnotations,
        ToolExecution,
        ToolResultContent,
        ToolUseContent,
        UnknownContent,
    )
    from mcp_manager.session.handlers import ElicitationRequest, Handlers, LogMessage, Progress, Root, SamplingRequest
    from mcp_manager.types import (
        CIRCUIT_STATE_CLOSED,
        CIRCUIT_STATE_HALF_OPEN,
        CIRCUIT_STATE_OPEN,
        SERVER_STATE_DEGRADED,
        SERVER_STATE_HEALTHY,
        SERVER_STATE_INITIALIZING,
        SERVER_STATE_MAINTENANCE,
        SERVER_STATE_STOPPED,
        SERVER_STATE_UNHEALTHY,
        CircuitState,
        PyHealthStatus,
        PyServerInfo,
        Selector,
        ServerState,
    )
    from mcp_manager.verbs.fleet_tools import FleetTool, ToolCatalog
    from mcp_manager.verbs.tasks import Task

__all__ = [  # noqa: RUF022 (plain alphabetical order, which a test holds)
    "AdminConfig",
    "AdminFields",
    "AllowConfig",
    "AllowFields",
    "Annotations",
    "Applied",
    "AudioContent",
    "AuditConfig",
    "AuditFields",
    "AuthConfig",
    "AuthError",
    "AuthFields",
    "BalancingConfig",
    "BalancingFields",
    "BreakerConfig",
    "BreakerFields",
    "CIRCUIT_STATE_CLOSED",
    "CIRCUIT_STATE_HALF_OPEN",
    "CIRCUIT_STATE_OPEN",
    "CallError",
    "CallToolResult",
    "Caller",
    "ChildExited",
    "ChildStarted",
    "CircuitChanged",
    "CircuitOpenError",
    "CircuitState",
    "ClientAuthConfig",
    "ClientAuthFields",
    "ClientLimitConfig",
    "ClientLimitFields",
    "CompleteResult",
    "Completion",
    "ConfigApplied",
    "ConfigError",
    "ConfigProblem",
    "ConnectError",
    "ConnectionLostError",
    "ContentBlock",
    "CredentialProvider",
    "DeadlineExceededError",
    "Delivery",
    "DiscoverResult",
    "DiscoveryConfig",
    "DiscoveryFields",
    "ElicitationRequest",
    "EmbeddedResource",
    "Event",
    "EventStream",
    "EventsMissed",
    "Exposition",
    "ExpositionStream",
    "FallbackConfig",
    "FallbackFields",
    "FileTokenStore",
    "FleetChange",
    "FleetSnapshot",
    "FleetSource",
    "FleetTool",
    "FlightRecord",
    "ForCaller",
    "GetPromptResult",
    "Handlers",
    "HealthConfig",
    "HealthFields",
    "HedgeConfig",
    "HedgeFields",
    "Icon",
    "ImageContent",
    "InputRequiredError",
    "InstanceSnapshot",
    "InvalidRequestError",
    "IssuerConfig",
    "IssuerFields",
    "LimitsConfig",
    "LimitsFields",
    "LogMessage",
    "LoopbackRedirect",
    "ManagerConfig",
    "ManagerFields",
    "ManagerSnapshot",
    "ManagerSource",
    "McpManager",
    "McpManagerError",
    "MemoryTokenStore",
    "MetricsCollector",
    "NotReadyError",
    "NotRunningError",
    "OverloadedError",
    "PinsConfig",
    "PinsFields",
    "Progress",
    "Prompt",
    "PromptArgument",
    "PromptMessage",
    "ProtocolError",
    "PyForCaller",
    "PyHealthStatus",
    "PyMcpManager",
    "PyServerInfo",
    "RateConfig",
    "RateFields",
    "ReadResourceResult",
    "RedirectHandler",
    "Resource",
    "ResourceContents",
    "ResourceLink",
    "ResourceTemplate",
    "RestartConfig",
    "RestartFields",
    "ResumeConfig",
    "ResumeFields",
    "RetryBudgetConfig",
    "RetryBudgetFields",
    "RetryConfig",
    "RetryFields",
    "RolloutError",
    "Root",
    "RpcError",
    "SERVER_STATE_DEGRADED",
    "SERVER_STATE_HEALTHY",
    "SERVER_STATE_INITIALIZING",
    "SERVER_STATE_MAINTENANCE",
    "SERVER_STATE_STOPPED",
    "SERVER_STATE_UNHEALTHY",
    "SamplingMessage",
    "SamplingRequest",
    "ScaleError",
    "Selector",
    "ServeConfig",
    "ServeFields",
    "ServerConfig",
    "ServerCredentialsConfig",
    "ServerCredentialsFields",
    "ServerDeployed",
    "ServerEvent",
    "ServerExistsError",
    "ServerExitedError",
    "ServerFields",
    "ServerMessage",
    "ServerNotFoundError",
    "ServerObject",
    "ServerRedeployed",
    "ServerScaled",
    "ServerSnapshot",
    "ServerSpec",
    "ServerState",
    "ServerStateChanged",
    "ServerUndeployed",
    "ServerView",
    "SessionLost",
    "SessionLostError",
    "SessionReplaced",
    "StderrLine",
    "StderrLines",
    "Task",
    "TaskError",
    "TelemetryConfig",
    "TelemetryFields",
    "TextContent",
    "TlsConfig",
    "TlsFields",
    "TokenStore",
    "Tool",
    "ToolAnnotations",
    "ToolCatalog",
    "ToolError",
    "ToolExecution",
    "ToolNotAllowedError",
    "ToolNotFoundError",
    "ToolResultContent",
    "ToolUseContent",
    "ToolsChanged",
    "ToolsConfig",
    "ToolsFields",
    "TracesConfig",
    "TracesFields",
    "UnknownContent",
    "UrlElicitationRequiredError",
    "ViewConfig",
    "ViewFields",
    "WatchedFile",
    "__version__",
    "accept_with_defaults",
    "current_caller",
    "elicitation_defaults",
    "load_manager_config",
]

# What a type checker reads above, for the run: a test holds the two against each other.
_MODULE_OF = {
    name: module
    for module, names in {
        "mcp_manager.auth.caller": "Caller current_caller",
        "mcp_manager.auth.redirect": "LoopbackRedirect RedirectHandler",
        "mcp_manager.auth.sources": "CredentialProvider",
        "mcp_manager.auth.token_store": "FileTokenStore MemoryTokenStore TokenStore",
        "mcp_manager.bindings": "FleetChange PyForCaller PyMcpManager",
        "mcp_manager.results": (
            "Annotations AudioContent CallToolResult CompleteResult Completion ContentBlock DiscoverResult "
            "EmbeddedResource GetPromptResult Icon ImageContent Prompt PromptArgument PromptMessage "
            "ReadResourceResult Resource ResourceContents ResourceLink ResourceTemplate SamplingMessage "
            "TextContent Tool ToolAnnotations ToolExecution ToolResultContent ToolUseContent UnknownContent"
        ),
        "mcp_manager.config": (
            "AdminConfig AllowConfig AuditConfig AuthConfig BalancingConfig BreakerConfig ClientAuthConfig "
            "ClientLimitConfig DiscoveryConfig FallbackConfig HealthConfig HedgeConfig IssuerConfig LimitsConfig "
            "ManagerConfig PinsConfig RateConfig RestartConfig ResumeConfig RetryBudgetConfig RetryConfig ServeConfig "
            "ServerConfig ServerCredentialsConfig "
            "TelemetryConfig TlsConfig ToolsConfig TracesConfig ViewConfig load_manager_config"
        ),
        "mcp_manager.config.fields.admin": "AdminFields",
        "mcp_manager.config.fields.access": "AllowFields ClientAuthFields ClientLimitFields",
        "mcp_manager.config.fields.issuers": "IssuerFields",
        "mcp_manager.config.fields.audit": "AuditFields PinsFields",
        "mcp_manager.config.fields.auth": "AuthFields",
        "mcp_manager.config.fields.health": "BreakerFields HealthFields RestartFields",
        "mcp_manager.config.fields.manager": "ManagerFields",
        "mcp_manager.config.fields.rates": "RateFields RetryBudgetFields",
        "mcp_manager.config.fields.resilience": "BalancingFields DiscoveryFields FallbackFields HedgeFields LimitsFields RetryFields",
        "mcp_manager.config.fields.resume": "ResumeFields",
        "mcp_manager.config.fields.serve": "ServeFields ViewFields",
        "mcp_manager.config.fields.server": "ServerFields",
        "mcp_manager.config.fields.server_credentials": "ServerCredentialsFields",
        "mcp_manager.config.fields.telemetry": "TelemetryFields",
        "mcp_manager.config.fields.tls": "TlsFields",
        "mcp_manager.config.fields.tools": "ToolsFields",
        "mcp_manager.config.fields.traces": "TracesFields",
        "mcp_manager.config.memory": "ServerObject",
        "mcp_manager.config.sources": "FleetSource ManagerSource",
        "mcp_manager.config.spec": "ServerSpec",
        "mcp_manager.calls.call_log": "FlightRecord",
        "mcp_manager.calls.exchange_listener": "ServerMessage",
        "mcp_manager.calls.for_caller": "ForCaller",
        "mcp_manager.errors": (
            "AuthError CallError CircuitOpenError ConfigError ConfigProblem ConnectError ConnectionLostError "
            "DeadlineExceededError Delivery InputRequiredError InvalidRequestError McpManagerError "
            "NotReadyError NotRunningError OverloadedError ProtocolError RolloutError RpcError ScaleError "
            "ServerExistsError ServerExitedError ServerNotFoundError SessionLostError TaskError ToolError "
            "ToolNotAllowedError ToolNotFoundError UrlElicitationRequiredError"
        ),
        "mcp_manager.events.child_output": "StderrLine StderrLines",
        "mcp_manager.events.records": (
            "ChildExited ChildStarted CircuitChanged ConfigApplied Event EventsMissed ServerDeployed ServerEvent "
            "ServerRedeployed ServerScaled ServerStateChanged ServerUndeployed SessionLost SessionReplaced ToolsChanged"
        ),
        "mcp_manager.events.stream": "EventStream",
        "mcp_manager.fleet": "Applied WatchedFile",
        "mcp_manager.manager": "McpManager",
        "mcp_manager.protocol.elicitation": "accept_with_defaults elicitation_defaults",
        "mcp_manager.session.handlers": "ElicitationRequest Handlers LogMessage Progress Root SamplingRequest",
        "mcp_manager.observe.collector": "MetricsCollector",
        "mcp_manager.observe.scraping": "Exposition ExpositionStream",
        "mcp_manager.observe.snapshot": "FleetSnapshot InstanceSnapshot ManagerSnapshot ServerSnapshot",
        "mcp_manager.verbs.tasks": "Task",
        "mcp_manager.verbs.fleet_tools": "FleetTool ToolCatalog",
        "mcp_manager.types": (
            "CIRCUIT_STATE_CLOSED CIRCUIT_STATE_HALF_OPEN CIRCUIT_STATE_OPEN SERVER_STATE_DEGRADED "
            "SERVER_STATE_HEALTHY SERVER_STATE_INITIALIZING SERVER_STATE_MAINTENANCE SERVER_STATE_STOPPED "
            "SERVER_STATE_UNHEALTHY CircuitState PyHealthStatus PyServerInfo Selector ServerState"
        ),
        "mcp_manager.observe.views": "ServerView",
    }.items()
    for name in names.split()
}

# "catalog" is the old name of "results".
_SUBMODULES = frozenset({"adapters", "auth", "bindings", "catalog", "config", "errors", "manager", "results", "types"})

install_finder()

# Without this, a program that has not configured logging prints the records to its terminal.
logging.getLogger(__name__).addHandler(logging.NullHandler())


# Hidden from type checkers, which would otherwise accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name, or a subpackage, when it is first asked for."""
        module = _MODULE_OF.get(name)
        if module is not None or name in _SUBMODULES:
            import_module("mcp_manager._core")
        if module is not None:
            found: object = getattr(import_module(module), name)
        elif name in _SUBMODULES:
            found = import_module(f"mcp_manager.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # The next look-up finds it without coming here.
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
