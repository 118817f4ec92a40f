"""Short names are looked up below the search domains of the system, as in Kubernetes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.recipes import ROOT

_RESOLV_CONF = """
search shop.svc.cluster.local svc.cluster.local cluster.local
nameserver 127.0.0.1
options ndots:{ndots}
"""
_PROGRAM = ROOT / "tests" / "support" / "programs" / "short_names.py"


def in_own_network(resolv_conf: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a network of its own, with this file as its ``/etc/resolv.conf``."""
    if shutil.which("unshare") is None or shutil.which("ip") is None or not Path("/etc/resolv.conf").exists():
        pytest.skip("it needs the commands unshare and ip, and a resolv.conf to cover")
    unshare = ["unshare", "--map-root-user", "--mount", "--net"]
    prepare = 'mount --bind "$0" /etc/resolv.conf && ip link set lo up'
    tried = subprocess.run(
        [*unshare, "sh", "-c", prepare, str(resolv_conf)], capture_output=True, timeout=30, check=False
    )
    if tried.returncode:
        pytest.skip(f"no network of its own here: {tried.stderr.decode().strip()}")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [*unshare, "sh", "-c", f'{prepare} && exec "$@"', str(resolv_conf), *command],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("ndots", "asked"),
    [
        (
            5,
            {
                "dns=search": ["search.shop.svc.cluster.local"],
                "dns=search.shop": ["search.shop.shop.svc.cluster.local", "search.shop.svc.cluster.local"],
                "dns=search.shop.svc.cluster.local.": ["search.shop.svc.cluster.local"],
                # Two names that are passed over, as glibc does.
                "dns=tools": ["tools.shop.svc.cluster.local", "tools.svc.cluster.local"],
                "dns=broken": ["broken.shop.svc.cluster.local", "broken.svc.cluster.local"],
                # Not passed over: another name might be another service.
                "kept=search": ["search.shop.svc.cluster.local"],
                "srv=_mcp._tcp.search": [
                    "_mcp._tcp.search.shop.svc.cluster.local",
                    "pod-1.search.shop.svc.cluster.local",
                ],
            },
        ),
        (
            2,
            {
                "dns=search": ["search.shop.svc.cluster.local"],
                "dns=search.shop.svc.cluster.local": ["search.shop.svc.cluster.local"],
                # As it is first: two dots are enough.
                "srv=_mcp._tcp.search": [
                    "_mcp._tcp.search",
                    "_mcp._tcp.search.shop.svc.cluster.local",
                    "pod-1.search.shop.svc.cluster.local",
                ],
            },
        ),
    ],
)
def test_short_names_are_searched_below_the_domains_of_the_system(
    ndots: int, asked: dict[str, list[str]], tmp_path: Path
) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(_RESOLV_CONF.format(ndots=ndots), encoding="utf-8")
    done = in_own_network(resolv_conf, sys.executable, str(_PROGRAM), *asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert dict(zip(asked, map(json.loads, done.stdout.splitlines()), strict=True)) == asked
