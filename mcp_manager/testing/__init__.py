"""Test your own code against MCP servers that fail.

With pytest, the fixtures ``faulty_server``, ``mcp_fleet``, ``fault_proxy``, ``virtual_clock`` and ``leaks`` are there as soon
as the package is installed with its extra ``testing``. Everything they are made of is here, for other test frameworks; and
``mcp-manager fault-server`` runs a faulty server for programs in any language.
"""

from __future__ import annotations

from mcp_manager.testing.assertions import assert_delivery, assert_no_hang, assert_recovers
from mcp_manager.testing.factories import FaultProxyFactory, FaultyServerFactory
from mcp_manager.testing.fault_proxy import FaultProxy, ProxyFaults
from mcp_manager.testing.faults import AnyFault, FaultRecord, Faults, Hold
from mcp_manager.testing.http_server import FaultyServer
from mcp_manager.testing.leaks import LeakCheck, LeakKind
from mcp_manager.testing.ledger import Ledger, LedgerEntry
from mcp_manager.testing.program_server import FaultyProgram
from mcp_manager.testing.scripted import Request
from mcp_manager.testing.tools import Era, Tool
from mcp_manager.testing.virtual_time import VirtualClock

__all__ = [
    "AnyFault",
    "Era",
    "FaultProxy",
    "FaultProxyFactory",
    "FaultRecord",
    "Faults",
    "FaultyProgram",
    "FaultyServer",
    "FaultyServerFactory",
    "Hold",
    "LeakCheck",
    "LeakKind",
    "Ledger",
    "LedgerEntry",
    "ProxyFaults",
    "Request",
    "Tool",
    "VirtualClock",
    "assert_delivery",
    "assert_no_hang",
    "assert_recovers",
]
