"""The settings: what differs between development and production comes from the environment."""

from __future__ import annotations

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

_SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY")
# Where there is a real key, debugging is off, unless somebody asks for it.
DEBUG = os.environ.get("DJANGO_DEBUG", "0" if _SECRET_KEY else "1") == "1"
if not _SECRET_KEY and not DEBUG:
    raise ImproperlyConfigured("Set DJANGO_SECRET_KEY: without DEBUG, there is no default")
SECRET_KEY = _SECRET_KEY or "insecure, for development alone"
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost 127.0.0.1").split()

INSTALLED_APPS = ["mcp_fleet", "arithmetic"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "mcp_fleet.middleware.McpErrors",
]
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"
USE_TZ = True
TIME_ZONE = "UTC"

# The servers: the path of a file, or whatever else PyMcpManager takes.
MCP_FLEET = os.environ.get("FLEET_FILE", str(BASE_DIR / "fleet.toml"))

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        name: {"handlers": ["console"], "level": os.environ.get("LOG_LEVEL", "INFO")}
        for name in ("mcp_manager", "mcp_fleet")
    },
}
