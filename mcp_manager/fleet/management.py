"""The methods of ``McpManager`` that change the fleet: deploy, replace, scale and remove servers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike
from typing import Unpack

from mcp_manager.config import arguments
from mcp_manager.config.fields.server import ServerFields
from mcp_manager.config.sources import FleetSource, fleet_config_of
from mcp_manager.config.spec import ServerSpec
from mcp_manager.errors import ConfigError
from mcp_manager.fleet.applying import Applied, Applying
from mcp_manager.fleet.file_watch import FileWatch, WatchedFile
from mcp_manager.fleet.fleet import Fleet, check
from mcp_manager.fleet.rollout import RedeployFields, RolloutPlan, Strategy, split_shift
from mcp_manager.fleet.verification import ToolCheck
from mcp_manager.runtime.effects import takes_effect_at_once

__all__ = ["FleetManagement"]


class FleetManagement(ABC):
    """Change which servers there are, and how many instances each has."""

    _fleet: Fleet
    _applying: Applying
    _file_watch: FileWatch

    @abstractmethod
    def _check_running(self) -> None:
        """Raise :class:`NotRunningError` unless the manager runs, on this loop."""

    @takes_effect_at_once
    async def deploy(self, server_id: str, config: ServerSpec | None = None, **fields: Unpack[ServerFields]) -> None:
        """Register a server, connect to it and probe it once, in at most ``connect_timeout_s``.

        A server that cannot be reached is not an error: it is deployed, ``Unhealthy``, and retried for ever. A program
        that takes longer to start goes on starting for up to ``start_timeout_s``; calls wait for it within their
        deadlines.

        Parameters
        ----------
        server_id
            Identifies the server: 1 to 256 characters without control characters.
        config
            What describes it, checked in any form: a :class:`ServerConfig`; a mapping of its fields; a URL; a list of a
            program and its arguments; a list of URLs, one for each instance; a JSON object as text; a server object of
            the packages ``mcp`` or ``fastmcp``, which then runs in this process, on the manager's loop. ``None`` if
            ``fields`` describe it.
        fields
            Fields of :class:`ServerConfig`. They replace those of ``config``, each as a whole.

        Raises
        ------
        ConfigError
            The id or the configuration is invalid; nothing was changed.
        ServerExistsError
            The id is in use.
        """
        self._check_running()
        await self._fleet.deploy(server_id, config, fields)

    @takes_effect_at_once
    async def undeploy(self, server_id: str) -> None:
        """Remove a server; its calls under way get ``shutdown_grace_s`` to finish, new ones raise :class:`ServerNotFoundError`.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """
        self._check_running()
        await self._fleet.undeploy(server_id)

    @takes_effect_at_once
    async def redeploy(
        self,
        server_id: str,
        config: ServerSpec | None = None,
        *,
        strategy: Strategy = "blue_green",
        verify_tools: ToolCheck = "off",
        **fields: Unpack[RedeployFields],
    ) -> None:
        """Replace a server's configuration without interrupting its service, whatever differs; see also :meth:`apply`.

        New instances are started and verified before old ones drain. New programs have ``start_timeout_s`` to start,
        while the old ones serve. The method returns when the old instances have ended, at most ``drain_timeout_s``
        after they got their last call.

        If it fails, or is cancelled before the switch, the server keeps its old configuration and number of instances.
        Replacements of one server wait for each other. :meth:`scale` does not wait for them, and the number that it
        sets stays in force.

        Parameters
        ----------
        server_id, config, fields
            As for :meth:`deploy`: together they are the whole new configuration, and nothing of the old one stays.
        strategy
            ``blue_green`` starts all new instances, which then take over together.

            ``rolling`` starts ``batch`` instances at a time, and drains an old one for each that serves, so that there
            are never fewer than desired.

            ``canary`` sends a part of the calls to new instances for ``canary_s`` seconds. If these got at least
            ``min_calls``, did not fail much more often than the old ones and were not much slower (p95), it continues
            as ``blue_green``. Meanwhile instances are drawn by weight, whatever the policy, except ``consistent``.
        batch
            How many instances ``rolling`` starts at a time, at least 1.
        percentage
            The share of calls for ``canary``, above 0 and below 100.
        canary_s
            How long ``canary`` compares, in seconds, above 0 and below 30 days.
        min_calls
            The fewest calls that ``canary`` judges by, at least 0.
        verify_tools
            What the new instances' tools must be, in addition to a successful handshake: ``same`` as before, by name
            and input schema; ``superset``, the same and perhaps more; ``off`` checks nothing. If no old instance can
            list its tools, there is nothing to compare.

        Raises
        ------
        CallError
            The new configuration does not connect. (With ``connect = "lazy"``, ``blue_green`` does not try unless tools
            are verified.)
        RolloutError
            The new configuration was rejected; the message says why.
        ConfigError, ServerNotFoundError
            An argument is invalid, or there is no such server; nothing was changed.
        """
        self._check_running()
        shift, own = split_shift(fields)
        plan = RolloutPlan(strategy=strategy, verify_tools=verify_tools, **shift)
        self._fleet.supervisor_of(server_id)
        await self._fleet.redeploy(server_id, check(server_id, config, own), plan)

    @takes_effect_at_once
    async def scale(self, server_id: str, instances: int) -> None:
        """Set how many instances a server has; new ones are connected, surplus ones drain. 0 suspends it.

        The number takes effect at once, and the last one set stays in force. The method returns when all new instances, including
        those added by another call, have been probed once, or after ``connect_timeout_s``. New instances take no calls before
        they have a session, as long as another instance has one. An instance that drains takes no new calls, and ends
        with the last of its calls, at most ``drain_timeout_s`` later.

        Parameters
        ----------
        server_id
            The server.
        instances
            The number of instances, from 0 to ``max_instances`` of its configuration.

        Raises
        ------
        ConfigError
            ``instances`` is out of range or not an integer.
        ScaleError
            The configuration lists fewer URLs than that.
        ServerNotFoundError
            No such server.
        """
        self._check_running()
        await self._fleet.scale(server_id, instances)

    async def apply(self, config: FleetSource) -> Applied:
        """Make the fleet match a configuration: deploy what is missing, change what differs, remove the rest.

        A server is replaced, as :meth:`redeploy` does, only if something differs that its sessions and programs are
        made from: ``url``, ``server``, ``command``, ``args``, ``env``, ``cwd``, ``inherit_env``, ``transport``,
        ``protocol_version``, ``auth``, ``headers``, ``headers_command``, ``tls``, ``proxy``, ``unix_socket``, ``discovery``,
        ``max_response_bytes``. Everything else is changed in place: sessions, programs and calls under way go on. What
        ``scale()`` has set stays in force unless ``instances`` itself differs.

        One call waits for another. Other methods may change the fleet meanwhile. It waits for servers for at most
        ``connect_timeout_s``. If it is cancelled, each server has either its old or its new configuration. The
        manager's own settings are fixed at its creation and do not change.

        Parameters
        ----------
        config
            A :class:`ManagerConfig`; a mapping, as a file has it or of servers by id; or the path of a file.

        Returns
        -------
        What was changed. A server whose new configuration does not connect keeps the old one and is in ``failed``; the
        next call tries again. One whose new program is not up after ``connect_timeout_s`` is in ``starting``; the
        program takes over when it is up.

        Raises
        ------
        ConfigError, ScaleError
            ``config``, or one of its servers, is invalid; nothing was changed.
        """
        self._check_running()
        return await self._applying.apply(fleet_config_of(config))

    async def update(self, server_id: str, config: ServerSpec | None = None, **fields: Unpack[ServerFields]) -> Applied:
        """Change the configuration of one server as :meth:`apply` does, and of no other.

        Parameters
        ----------
        server_id, config, fields
            As for :meth:`deploy`: together they are the whole new configuration, and nothing of the old one stays.

        Returns
        -------
        What was changed, as for :meth:`apply`.

        Raises
        ------
        ConfigError, ServerNotFoundError
            The configuration is invalid, or there is no such server; nothing was changed.
        """
        self._check_running()
        self._fleet.supervisor_of(server_id)
        return await self._applying.update(server_id, check(server_id, config, fields))

    async def watch(
        self, path: str | PathLike[str], *, lenient: bool = False, interval_s: float = 1.0, sighup: bool = False
    ) -> Applied:
        """Apply a configuration file, and again whenever it changes, until :meth:`unwatch` or :meth:`stop`.

        A file that cannot be read, or is invalid or empty, changes nothing: a warning says why, and the file is read
        again when it has changed. Files that are replaced, and links that change, are noticed. The file is read once it
        has not changed for a quarter of a second. What other methods change stays until the file changes again.

        A manager follows one file: another call ends the watch that was there before.

        Parameters
        ----------
        path
            The file; see :func:`load_manager_config`.
        lenient
            Load the rest of a file in which some servers are invalid. Those stay as they are, if they are deployed;
            :attr:`Applied.invalid` names them.
        interval_s
            Seconds between two looks at the file, above 0.
        sighup
            Read the file also for every SIGHUP, changed or not. The handler that was there before is called as well,
            and restored at the end. This needs the main thread.

        Returns
        -------
        What the file has changed the first time; :attr:`watched` tells of the last time.

        Raises
        ------
        ConfigError
            The file or an argument is invalid; nothing was changed, and no file is followed that was not before.
        """
        self._check_running()
        interval_s = arguments.as_seconds(interval_s, "interval_s")
        if not interval_s > 0:
            raise ConfigError("interval_s must be above 0")
        lenient, sighup = arguments.as_flag(lenient, "lenient"), arguments.as_flag(sighup, "sighup")
        return await self._file_watch.begin(path, interval_s, lenient=lenient, sighup=sighup)

    async def unwatch(self) -> None:
        """End :meth:`watch`; the fleet stays as it is. Idempotent."""
        self._check_running()
        await self._file_watch.end()

    @property
    def watched(self) -> WatchedFile | None:
        """The file that :meth:`watch` follows and what became of it; ``None`` without one. Works on any thread."""
        return self._file_watch.state

    @takes_effect_at_once
    async def set_maintenance(self, server_id: str, on: bool) -> None:
        """Take a server out of traffic (state ``Maintenance``), or put it back.

        The server stays out while it is scaled or replaced, until it is put back.

        Parameters
        ----------
        server_id
            The server.
        on
            ``True`` takes it out, ``False`` puts it back.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """
        self._check_running()
        self._fleet.set_maintenance(server_id, arguments.as_flag(on, "on"))

    async def wait_ready(self, min: int | None = None, *, timeout: float | None = None) -> None:
        """Wait until servers are ``Healthy`` or ``Degraded`` and have a session.

        It makes sessions that are missing, also those of lazy servers and where ``health.enabled`` is false. A server
        in maintenance, or suspended, keeps it waiting.

        Parameters
        ----------
        min
            How many servers must be ready; by default all that are deployed.
        timeout
            Seconds to wait; ``None`` waits without limit.

        Raises
        ------
        NotReadyError
            The time has passed; a ``DeadlineExceededError``, which says which servers are not ready, and why.
        """
        self._check_running()
        await self._fleet.wait_ready(min, arguments.check_timeout(timeout), self._check_running)
