"""The application for uvicorn and other ASGI servers."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django = get_asgi_application()

from mcp_fleet.lifespan import with_fleet  # noqa: E402 - it needs the settings

application = with_fleet(django)
