"""Name the queues, who consumes them and for how long; imports nothing, so anyone may ask."""

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
DELIVER = "notifications.deliver"

MAX_SOFT_LIMIT_S = 4 * 3600
HARD_AFTER_SOFT_S = 300
MAX_HARD_LIMIT_S = MAX_SOFT_LIMIT_S + HARD_AFTER_SOFT_S
"""No task may run longer: Redis would deliver its message a second time."""
