"""The verb that prints the JSON Schema of the configuration file."""

from __future__ import annotations

import json

from mcp_manager.cli.importing import write
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import note, print_json
from mcp_manager.config.schema import config_schema

__all__ = ["run"]


async def run(options: Options) -> int:
    """Print the schema, or write it to a file; return 0."""
    schema = config_schema()
    if options.output is None:
        print_json(schema)
        return 0
    write(options.output, f"{json.dumps(schema, indent=2)}\n", options)
    if options.json:
        print_json({"output": options.output})
    else:
        note(f"wrote {options.output}", quiet=options.quiet)
    return 0
