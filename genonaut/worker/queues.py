"""Name the queues and who consumes them; imports nothing, so that anyone may ask."""

GENERATION = "generation"
MAINTENANCE = "maintenance"
NOTIFICATIONS = "notifications"
DEFAULT = "default"
QUEUES = (GENERATION, MAINTENANCE, NOTIFICATIONS, DEFAULT)

WORKERS = {
    "generation": (GENERATION,),
    "maintenance": (MAINTENANCE,),
    "default": (DEFAULT, NOTIFICATIONS),
}
"""Workers by name and the queues each consumes: a backfill never takes a user's slot."""

RUN_COMFY_JOB = "run_comfy_job"
