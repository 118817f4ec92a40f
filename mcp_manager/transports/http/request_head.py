"""The head of a request, rendered before the request is known."""

from __future__ import annotations

from collections.abc import Mapping

from yarl import URL

__all__ = ["field_lines", "render_head"]


def render_head(verb: str, url: URL, headers: Mapping[str, str]) -> bytes:
    """Render the head of a request up to where the length of its body belongs (RFC 9112, section 3)."""
    lines = [f"{verb} {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_port_subcomponent}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if verb == "POST":
        lines.append("Content-Type: application/json")
    lines.append("Content-Length: ")
    return "\r\n".join(lines).encode("latin-1")


def field_lines(fields: Mapping[str, str]) -> bytes:
    """Render header fields, each with its line end."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode("latin-1")
