"""The check of a requested number of instances: a number that the server cannot have is an error."""

from __future__ import annotations

from mcp_manager.config import ServerConfig
from mcp_manager.errors import ConfigError, ScaleError
from mcp_manager.fleet.discovery import require_dns

__all__ = ["check_instances"]


def check_instances(server_id: str, config: ServerConfig, instances: int) -> None:
    """Check that a server can have a number of instances.

    That number means: so many child processes, the first so many URLs of a list or template, so many independent
    sessions with a plain URL, or with discovery at most so many of the addresses found. 0 suspends the server.

    Parameters
    ----------
    server_id
        The server's id, for errors.
    config
        The server's configuration.
    instances
        The requested number.

    Raises
    ------
    ConfigError
        The number is not an integer, is negative or above ``max_instances``; the URL template yields no valid URL; or
        discovery is configured and dnspython is not installed.
    ScaleError
        The server's list of URLs is shorter.
    """
    if not isinstance(instances, int) or isinstance(instances, bool):
        raise ConfigError(f"instances must be an integer, not {type(instances).__name__}", server_id=server_id)
    if not 0 <= instances <= config.max_instances:
        raise ConfigError(
            f"instances must be between 0 and max_instances ({config.max_instances}), not {instances}",
            server_id=server_id,
            hint="raise max_instances in the server's configuration" if instances > 0 else "",
        )
    limit = config.url_limit
    if limit is not None and instances > limit:
        raise ScaleError(
            f"Server {server_id} cannot have {instances} instances: its url lists {limit}",
            server_id=server_id,
            hint="add URLs to the list and redeploy",
        )
    if config.discovery.kind != "none":
        require_dns(server_id)
    if config.has_url_template and instances:
        config.instance_url(instances - 1)
