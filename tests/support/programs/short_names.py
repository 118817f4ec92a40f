"""Deploy servers by short names and print which names were asked for, on a machine whose DNS server is 127.0.0.1.

Run it in a network of its own, whose ``resolv.conf`` has a search list as in Kubernetes: it listens on port 53. The
arguments are the kind of discovery and the host, with a dot at its end if the name is complete. ``kept`` means look-ups
of a name whose server reports a failure after it had an address.
"""

from __future__ import annotations

import asyncio
import json
import sys

import dns.rcode
from support.name_server import NameServer

from mcp_manager import McpManager
from mcp_manager.config import DiscoveryConfig
from mcp_manager.testing.scripted import ScriptedServer

_ZONE = "shop.svc.cluster.local"


async def main(names_and_kinds: list[str]) -> None:
    """Print a JSON object for each host."""
    with NameServer(port=53) as names, ScriptedServer() as server:
        names.records[f"search.{_ZONE}", "A"] = names.records[f"pod-1.search.{_ZONE}", "A"] = ["127.0.0.1"]
        names.records[f"search.{_ZONE}", "AAAA"] = []
        names.records[f"_mcp._tcp.search.{_ZONE}", "SRV"] = [f"0 50 {server.port} pod-1.search.{_ZONE}."]
        # Not a name for `search`: it is found before.
        names.records["search.svc.cluster.local", "AAAA"] = ["::1"]
        # A name without addresses, and a failure of its name server, before a name that has an address.
        names.records[f"tools.{_ZONE}", "TXT"] = ["no address"]
        names.rcodes[f"broken.{_ZONE}"] = dns.rcode.SERVFAIL
        names.records["tools.svc.cluster.local", "A"] = names.records["broken.svc.cluster.local", "A"] = ["127.0.0.1"]
        async with McpManager() as manager:
            for number, each in enumerate(names_and_kinds):
                kind, host = each.split("=")
                names.asked.clear()
                every_s = 0.05 if kind == "kept" else 60.0
                discovery = DiscoveryConfig(
                    kind="srv" if kind == "srv" else "dns", min_refresh_s=every_s, refresh_s=every_s
                )
                await manager.deploy(str(number), url=f"http://{host}:{server.port}/mcp", discovery=discovery)
                await manager.ping(str(number), timeout=10)
                if kind == "kept":
                    names.rcodes[f"{host}.{_ZONE}"] = dns.rcode.SERVFAIL
                    names.asked.clear()
                    await names.wait_for_queries(4)
                    await manager.undeploy(str(number))
                    del names.rcodes[f"{host}.{_ZONE}"]
                print(json.dumps(list(dict.fromkeys(name for name, _, _ in names.asked))))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
