"""Manage fleets of MCP servers: deploy, call, scale, watch and heal them, from asyncio, threads or alone.

A public name is loaded with its first use (PEP 562), so that a program pays for the parts it uses: importing this
package alone imports neither asyncio nor the compiled core.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mcp_manager._version import __version__
from mcp_manager.runtime.moved import install_finder

if TYPE_CHECKING:
    from mcp_manager.auth.redirect import LoopbackRedirect, RedirectHandler
    from mcp_manager.auth.token_store import FileTokenStore, MemoryTokenStore, TokenStore
    from mcp_manager.bindings import PyMcpManager
    from mcp_manager.calls.call_log import FlightRecord
    from mcp_manager.config import (
        AuthConfig,
        BalancingConfig,
        BreakerConfig,
        DiscoveryConfig,
        FallbackConfig,
        HealthConfig,
        HedgeConfig,
        LimitsConfig,
        ManagerConfig,
        RateConfig,
        RestartConfig,
        RetryBudgetConfig,
        RetryConfig,
        ServerConfig,
        TelemetryConfig,
        TlsConfig,
        TracesConfig,
        load_manager_config,
    )
    from mcp_manager.errors import (
        AuthError,
        CallError,
        CircuitOpenError,
        ConfigError,
        ConnectError,
        ConnectionLostError,
        DeadlineExceededError,
        Delivery,
        InputRequiredError,
        InvalidRequestError,
        McpManagerError,
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
        ToolNotFoundError,
        UrlElicitationRequiredError,
    )
    from mcp_manager.fleet import Applied
    from mcp_manager.manager import McpManager
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
    "Annotations",
    "Applied",
    "AudioContent",
    "AuthConfig",
    "AuthError",
    "BalancingConfig",
    "BreakerConfig",
    "CIRCUIT_STATE_CLOSED",
    "CIRCUIT_STATE_HALF_OPEN",
    "CIRCUIT_STATE_OPEN",
    "CallError",
    "CallToolResult",
    "CircuitOpenError",
    "CircuitState",
    "CompleteResult",
    "Completion",
    "ConfigError",
    "ConnectError",
    "ConnectionLostError",
    "ContentBlock",
    "DeadlineExceededError",
    "Delivery",
    "DiscoverResult",
    "DiscoveryConfig",
    "ElicitationRequest",
    "EmbeddedResource",
    "FallbackConfig",
    "FileTokenStore",
    "FleetSnapshot",
    "FleetTool",
    "FlightRecord",
    "GetPromptResult",
    "Handlers",
    "HealthConfig",
    "HedgeConfig",
    "Icon",
    "ImageContent",
    "InputRequiredError",
    "InstanceSnapshot",
    "InvalidRequestError",
    "LimitsConfig",
    "LogMessage",
    "LoopbackRedirect",
    "ManagerConfig",
    "ManagerSnapshot",
    "McpManager",
    "McpManagerError",
    "MemoryTokenStore",
    "NotRunningError",
    "OverloadedError",
    "Progress",
    "Prompt",
    "PromptArgument",
    "PromptMessage",
    "ProtocolError",
    "PyHealthStatus",
    "PyMcpManager",
    "PyServerInfo",
    "RateConfig",
    "ReadResourceResult",
    "RedirectHandler",
    "Resource",
    "ResourceContents",
    "ResourceLink",
    "ResourceTemplate",
    "RestartConfig",
    "RetryBudgetConfig",
    "RetryConfig",
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
    "ServerConfig",
    "ServerExistsError",
    "ServerExitedError",
    "ServerNotFoundError",
    "ServerSnapshot",
    "ServerState",
    "ServerView",
    "SessionLostError",
    "Task",
    "TaskError",
    "TelemetryConfig",
    "TextContent",
    "TlsConfig",
    "TokenStore",
    "Tool",
    "ToolAnnotations",
    "ToolCatalog",
    "ToolExecution",
    "ToolNotFoundError",
    "ToolResultContent",
    "ToolUseContent",
    "TracesConfig",
    "UnknownContent",
    "UrlElicitationRequiredError",
    "__version__",
    "accept_with_defaults",
    "elicitation_defaults",
    "load_manager_config",
]

# What a type checker reads above, for the run: a test holds the two against each other.
_MODULE_OF = {
    name: module
    for module, names in {
        "mcp_manager.auth.redirect": "LoopbackRedirect RedirectHandler",
        "mcp_manager.auth.token_store": "FileTokenStore MemoryTokenStore TokenStore",
        "mcp_manager.bindings": "PyMcpManager",
        "mcp_manager.results": (
            "Annotations AudioContent CallToolResult CompleteResult Completion ContentBlock DiscoverResult "
            "EmbeddedResource GetPromptResult Icon ImageContent Prompt PromptArgument PromptMessage "
            "ReadResourceResult Resource ResourceContents ResourceLink ResourceTemplate SamplingMessage "
            "TextContent Tool ToolAnnotations ToolExecution ToolResultContent ToolUseContent UnknownContent"
        ),
        "mcp_manager.config": (
            "AuthConfig BalancingConfig BreakerConfig DiscoveryConfig FallbackConfig HealthConfig HedgeConfig "
            "LimitsConfig ManagerConfig RateConfig RestartConfig RetryBudgetConfig RetryConfig ServerConfig "
            "TelemetryConfig TlsConfig TracesConfig load_manager_config"
        ),
        "mcp_manager.calls.call_log": "FlightRecord",
        "mcp_manager.errors": (
            "AuthError CallError CircuitOpenError ConfigError ConnectError ConnectionLostError "
            "DeadlineExceededError Delivery InputRequiredError InvalidRequestError McpManagerError "
            "NotRunningError OverloadedError ProtocolError RolloutError RpcError ScaleError ServerExistsError "
            "ServerExitedError ServerNotFoundError SessionLostError TaskError ToolNotFoundError "
            "UrlElicitationRequiredError"
        ),
        "mcp_manager.fleet": "Applied",
        "mcp_manager.manager": "McpManager",
        "mcp_manager.protocol.elicitation": "accept_with_defaults elicitation_defaults",
        "mcp_manager.session.handlers": "ElicitationRequest Handlers LogMessage Progress Root SamplingRequest",
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
_SUBMODULES = frozenset({"auth", "bindings", "catalog", "config", "errors", "manager", "results", "types"})

install_finder()


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
