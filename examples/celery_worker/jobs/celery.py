"""The application: ``celery -A jobs worker``. To import it starts nothing, so programs that only send tasks may."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from celery import Celery

FOLDER: Final = Path(os.environ.get("JOBS_FOLDER", str(Path(__file__).parent.parent / ".queue")))
"""Where queues and results are, unless ``CELERY_BROKER_URL`` and ``CELERY_RESULT_BACKEND`` say otherwise."""

app = Celery("jobs", include=["jobs.fleet", "jobs.tasks"])
app.conf.update(
    task_serializer="json",
    result_backend=os.environ.get("CELERY_RESULT_BACKEND", f"file://{FOLDER / 'results'}"),
    result_serializer="json",
    accept_content=["json"],
    task_track_started=True,
    # A child that starts has to connect its fleet first; Celery kills it after four seconds by default.
    worker_proc_alive_timeout=30.0,
    # Long tasks: a child takes no task in advance that another child could begin.
    worker_prefetch_multiplier=1,
    # The last resorts; deadlines of calls are shorter. The hard limit kills the child, and its MCP programs with it.
    task_soft_time_limit=60,
    task_time_limit=90,
    # A child that is killed has nothing more to say.
    worker_lost_wait=1.0,
    broker_connection_retry_on_startup=True,
    result_expires=3600,
)

if "CELERY_BROKER_URL" not in os.environ:
    # Files in place of a broker: for one machine, and for trying this out.
    for name in ("queue", "control"):
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
    app.conf.update(
        broker_url="filesystem://localhost",
        broker_transport_options={
            "data_folder_in": str(FOLDER / "queue"),
            "data_folder_out": str(FOLDER / "queue"),
            "control_folder": str(FOLDER / "control"),
            "polling_interval": 0.1,
        },
    )
if "CELERY_RESULT_BACKEND" not in os.environ:
    (FOLDER / "results").mkdir(parents=True, exist_ok=True)
