"""The recipe in ``examples/kubernetes``: its manifests agree with each other, and its fleet follows pods and volumes."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import threading
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from support.deployed_service import Answer, DeployedService, deployed_service
from support.kubernetes_volumes import Volume
from support.name_server import NameServer
from support.recipes import folder_of

from mcp_manager import load_manager_config
from mcp_manager.testing.scripted import Request, ScriptedServer

OLDEST = "1.30"
"""The oldest version of Kubernetes with a ``preStop`` that sleeps without a program."""
NAME = "search-servers.default.svc.cluster.local"
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
TTL_S = 5
"""Of the records that CoreDNS makes of Services."""

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def folder() -> Path:
    return folder_of("kubernetes")


@pytest.fixture(scope="module")
def manifests(folder: Path) -> dict[tuple[str, str], Manifest]:
    """All manifests by kind and name."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.yaml"))]
    documents = [each for text in texts for each in yaml.safe_load_all(text)]
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


@pytest.fixture(scope="module")
def fleet_text(manifests: dict[tuple[str, str], Manifest]) -> str:
    [text] = manifests["ConfigMap", "mcp-fleet"]["data"].values()
    return str(text)


def pod_of(deployment: Manifest) -> Manifest:
    return dict(deployment["spec"]["template"])


def container_of(deployment: Manifest) -> Manifest:
    [container] = pod_of(deployment)["spec"]["containers"]
    return dict(container)


def variables(deployment: Manifest) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container_of(deployment)["env"]}


def ports(deployment: Manifest) -> dict[str, int]:
    return {each["name"]: each["containerPort"] for each in container_of(deployment)["ports"]}


# Manifests


@pytest.mark.parametrize("version", [OLDEST, "newest"])
def test_kubernetes_accepts_the_manifests(version: str, manifests: dict[tuple[str, str], Manifest]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    if version == "newest":
        version = kubernetes_validate.latest_version()
    checked = [each for kind, each in manifests.items() if kind[0] != "PodMonitor"]
    for manifest in checked:
        kubernetes_validate.validate(manifest, version, strict=True)
    assert len(checked) == 8
    broken = {**manifests["Service", "mcp-service"], "spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


def test_selectors_ports_and_policies_fit(manifests: dict[tuple[str, str], Manifest]) -> None:
    workloads = {name: each for (kind, name), each in manifests.items() if kind == "Deployment"}
    labels = {name: pod_of(each)["metadata"]["labels"] for name, each in workloads.items()}
    for name, workload in workloads.items():
        assert workload["spec"]["selector"]["matchLabels"] == labels[name]
        assert manifests["Service", name]["spec"]["selector"] == labels[name]
        [port] = manifests["Service", name]["spec"]["ports"]
        assert port["targetPort"] in ports(workload)
        policy = manifests["NetworkPolicy", name]["spec"]
        assert policy["podSelector"]["matchLabels"] == labels[name]
        [ingress] = policy["ingress"]
        assert [each["port"] for each in ingress["ports"]] == list(ports(workload))
        for probe in ("readinessProbe", "livenessProbe"):
            [place] = [
                each for kind, each in container_of(workload).get(probe, {}).items() if kind in ("httpGet", "tcpSocket")
            ] or [{"port": port["targetPort"]}]
            assert place["port"] in ports(workload)
    [to_servers, _] = manifests["NetworkPolicy", "mcp-service"]["spec"]["egress"]
    assert to_servers["to"] == [{"podSelector": {"matchLabels": labels["search-servers"]}}]
    assert [each["port"] for each in to_servers["ports"]] == list(ports(workloads["search-servers"]))
    [from_service] = manifests["NetworkPolicy", "search-servers"]["spec"]["ingress"]
    assert from_service["from"] == [{"podSelector": {"matchLabels": labels["mcp-service"]}}]
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        assert manifests[kind, "mcp-service"]["spec"]["selector"]["matchLabels"] == labels["mcp-service"]
    [endpoint] = manifests["PodMonitor", "mcp-service"]["spec"]["podMetricsEndpoints"]
    scraped = pod_of(workloads["mcp-service"])["metadata"]["annotations"]
    assert endpoint["port"] in ports(workloads["mcp-service"])
    assert scraped["prometheus.io/port"] == str(ports(workloads["mcp-service"])[endpoint["port"]])
    assert scraped["prometheus.io/path"] == endpoint["path"]
    assert variables(workloads["mcp-service"])["PORT"] == scraped["prometheus.io/port"]


def test_the_fleet_is_valid_and_finds_its_files_and_servers(
    manifests: dict[tuple[str, str], Manifest], fleet_text: str, folder: Path, tmp_path: Path
) -> None:
    service = manifests["Deployment", "mcp-service"]
    mounts = {each["name"]: each for each in container_of(service)["volumeMounts"]}
    volumes = {each["name"]: each for each in pod_of(service)["spec"]["volumes"]}
    assert set(mounts) == set(volumes)
    # A mount of a single file never changes.
    assert not any("subPath" in each for each in mounts.values())

    [name] = manifests["ConfigMap", volumes["fleet"]["configMap"]["name"]]["data"]
    assert variables(service)["FLEET_FILE"] == f"{mounts['fleet']['mountPath']}/{name}"
    (tmp_path / name).write_text(fleet_text, encoding="utf-8")
    search = load_manager_config(tmp_path / name).servers["search"]
    url = urlsplit(str(search.url))
    headless = manifests["Service", str(url.hostname)]["spec"]
    assert headless["clusterIP"] == "None"
    assert url.port == headless["ports"][0]["port"] == ports(manifests["Deployment", "search-servers"])["mcp"]

    readme = (folder / "README.md").read_text(encoding="utf-8")
    made = re.search(r"kubectl create secret generic (\S+) --from-file=(\S+?)=", readme)
    assert made is not None
    assert volumes["tokens"]["secret"]["secretName"] == made[1]
    assert search.auth.token_file == f"{mounts['tokens']['mountPath']}/{made[2]}"


def test_pods_have_the_time_that_their_end_takes(manifests: dict[tuple[str, str], Manifest], fleet_text: str) -> None:
    service, servers = manifests["Deployment", "mcp-service"], manifests["Deployment", "search-servers"]
    request_s = tomllib.loads(fleet_text)["defaults"]["request_timeout_s"]
    given = variables(service)
    shutdown_s = 10  # manager.shutdown_timeout_s
    assert request_s < float(given["DRAIN_S"])
    end_s = float(given["LINGER_S"]) + float(given["DRAIN_S"]) + shutdown_s
    assert end_s < pod_of(service)["spec"]["terminationGracePeriodSeconds"]
    probe = container_of(service)["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= float(given["LINGER_S"])

    pause_s = container_of(servers)["lifecycle"]["preStop"]["sleep"]["seconds"]
    refresh_s = 5  # discovery.min_refresh_s, with records that expire as soon
    assert pause_s > TTL_S + refresh_s
    assert pause_s + request_s <= pod_of(servers)["spec"]["terminationGracePeriodSeconds"]


def test_containers_have_no_rights_that_they_do_not_need(manifests: dict[tuple[str, str], Manifest]) -> None:
    for name in ("mcp-service", "search-servers"):
        pod = pod_of(manifests["Deployment", name])["spec"]
        container = container_of(manifests["Deployment", name])["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["automountServiceAccountToken"] is False
        assert container == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


# Pods come and go


class Pod(ScriptedServer):
    """An MCP server in a pod, which admits those whose token is valid."""

    def __init__(self, valid: set[str], host: str, port: int) -> None:
        super().__init__(host=host, port=port)
        self.valid = valid

    def answer(self, request: Request) -> tuple[int, dict[str, str], dict[str, Any] | None]:
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.valid:
            return 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}, None
        return super().answer(request)

    @property
    def calls(self) -> int:
        return len(self.executed)


@pytest.fixture
def pods() -> Iterator[dict[str, Pod]]:
    """A pod for each address, all with the same port and the same valid tokens."""
    valid = {"token-1"}
    with contextlib.ExitStack() as stack:
        while True:
            try:
                first = stack.enter_context(Pod(valid, ADDRESSES[0], 0))
                others = [stack.enter_context(Pod(valid, host, first.port)) for host in ADDRESSES[1:]]
                break
            except OSError:
                # The port is taken on one of them.
                stack.pop_all().close()
        yield {each.host: each for each in (first, *others)}


class Traffic:
    """Callers that call until the end of the ``with``; ``answers`` are what they got."""

    def __init__(self, service: DeployedService, callers: int = 2) -> None:
        self.answers: list[Answer] = []
        self._service = service
        self._numbers = itertools.count()
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(callers)
        self._callers = callers

    def __enter__(self) -> Traffic:
        self._running = [self._pool.submit(self._call) for _ in range(self._callers)]
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._pool.shutdown()
        for each in self._running:
            each.result()

    def _call(self) -> None:
        while not self._is_over.is_set():
            self.answers.append(self._service.call("search", "echo", text=str(next(self._numbers))))

    def goes_on_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds, which becomes so by traffic and time."""
        for _ in range(1500):
            if condition():
                return
            assert not any(each.done() for each in self._running)
            self._is_over.wait(0.02)
        pytest.fail(f"it never became so:\n{self._service.program.output}", pytrace=False)


def test_pods_tokens_and_the_fleet_change_under_traffic(pods: dict[str, Pod], fleet_text: str, tmp_path: Path) -> None:
    second, third, fourth = (pods[each] for each in ADDRESSES)
    tokens = Volume(tmp_path / "tokens", {"search": "token-1\n"})
    with NameServer() as names:
        quick = f'{{ kind = "dns", nameservers = ["{names.address}"], refresh_s = 0.1, min_refresh_s = 0.05 }}'
        text = fleet_text
        for here, there in {
            "http://search-servers:8000": f"http://{NAME}:{second.port}",
            '{ kind = "dns" }': quick,
            "/run/secrets/mcp": str(tokens.path),
        }.items():
            assert text.count(here) == 1
            text = text.replace(here, there)
        fleet = Volume(tmp_path / "fleet", {"fleet.toml": text})
        headless_service = names.records
        headless_service[NAME, "A"] = [second.host, third.host]
        headless_service[NAME, "AAAA"] = []

        with deployed_service(fleet.path / "fleet.toml") as service:
            service.wait_ready(servers=1)
            with Traffic(service) as traffic:
                traffic.goes_on_until(lambda: second.calls > 0 and third.calls > 0)
                # A pod becomes ready.
                headless_service[NAME, "A"] = [second.host, third.host, fourth.host]
                traffic.goes_on_until(lambda: fourth.calls > 0)
                # Another is to end: it is no longer in DNS, and the pause of preStop lasts until the service knows.
                headless_service[NAME, "A"] = [third.host, fourth.host]
                traffic.goes_on_until(lambda: not second.live_sessions)
                second.refuse_connections()
                # The token is renewed.
                tokens.update({"search": "token-2\n"})
                third.valid.add("token-2")
                third.valid.remove("token-1")
                so_far = third.calls
                traffic.goes_on_until(lambda: third.calls > so_far + 5)
                # The ConfigMap is applied again.
                fleet.update({"fleet.toml": text + text[text.index("[servers.") :].replace("search]", "more]")})
                service.wait_ready(servers=2)
                # All pods are replaced, by one with another address.
                second.listen()
                headless_service[NAME, "A"] = [second.host]
                so_far = second.calls
                traffic.goes_on_until(lambda: not third.live_sessions | fourth.live_sessions)
                traffic.goes_on_until(lambda: second.calls > so_far + 5)
            assert {each.status for each in traffic.answers} == {200}
            assert sum(each.calls for each in pods.values()) == len(traffic.answers)
            assert service.text("more", "echo", text="hello") == "hello"
            assert service.program.end(signal.SIGTERM) == 0
    assert not any(each.live_sessions for each in pods.values())
