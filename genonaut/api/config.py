"""Read the settings: the only place that looks at the process environment.

This module is a leaf: it imports nothing of ours, so every layer may import it.
"""

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from dotenv.main import DotEnv
from dotenv.variables import parse_variables
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ROOT = Path(__file__).resolve().parents[2]
"""The checkout (or site-packages, for an installed wheel)."""

BUILT_IN = ("demo", "test", "dev")
"""Environments that need no configuration and may use embedded servers."""

ENV_FILE = "GENONAUT_ENV_FILE"
"""The variable that names another file than ``env/.env``."""

_STORAGE = ("storage_dir", "storage_url")
_NAMESPACE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")

CORE_NODES = (
    "CheckpointLoaderSimple,CLIPLoader,CLIPSetLastLayer,CLIPTextEncode,ConditioningAverage,"
    "ConditioningCombine,ConditioningConcat,EmptyImage,EmptyLatentImage,EmptySD3LatentImage,"
    "ImageScale,ImageScaleBy,KSampler,KSamplerAdvanced,LatentUpscale,LatentUpscaleBy,LoraLoader,"
    "LoraLoaderModelOnly,PreviewImage,SaveImage,UNETLoader,VAEDecode,VAEEncode,VAELoader"
)


class ConfigError(Exception):
    """Say in one line what is missing or wrong in the environment."""


class _DotEnvSource(PydanticBaseSettingsSource):
    """Give the values of ``env/.env``, with ``${OTHER}`` filled in.

    The process environment wins inside ``${…}`` too, so that overriding ``REDIS_URL_DEV`` on the
    command line also moves the broker that the file derives from it.
    """

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Satisfy the base class; the mapping is produced whole by ``__call__``."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        known = self.settings_cls.model_fields
        variables = _variables()
        default = {"app_env": known["app_env"].default}
        env = {**default, **variables, **self.current_state}["app_env"]
        # Where this environment's pictures are goes before where all are, of either kind.
        own = {name: variables[key] for name in _STORAGE if (key := f"{name}_{env}") in variables}
        general = {n: value for n, value in variables.items() if n not in _STORAGE or not own}
        return {name: value for name, value in {**general, **own}.items() if name in known}


def env_file() -> Path:
    """Say which file is read, absolute: ``env/.env`` here or in the project, unless one is named.

    Processes we start run elsewhere, so they are told.
    """
    if named := os.environ.get(ENV_FILE):  # noqa: TID251
        return Path(named).absolute()
    local = Path("env/.env").absolute()
    return local if local.is_file() else ROOT / "env" / ".env"


def _variables() -> dict[str, str]:
    """Merge ``env/.env`` and the process environment (which wins), keys in lower case.

    An empty value counts as unset, so that ``COMFYUI_URL=`` in a file means the default.
    """
    process = {name: value for name, value in os.environ.items() if value}  # noqa: TID251
    filled: dict[str, str] = {}
    path = env_file()
    if path.is_file():
        try:
            file = DotEnv(path, interpolate=False, encoding="utf-8").dict()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path.name}: {error}") from error
        for name, written in file.items():
            known = {**filled, **process}
            parts = (part.resolve(known) for part in parse_variables(written or ""))
            if value := "".join(parts):
                filled[name] = value
    return {name.lower(): value for name, value in {**filled, **process}.items()}


_EDGE = r"([1-9]\d{0,2}|[1-3]\d{3}|40[0-8]\d|409[0-6])"


class Settings(BaseSettings):
    """Hold every setting; ``env/env.example`` lists them with the same defaults.

    The properties without an environment in their name (``redis_url``, ``database_url``, …) give
    the value of the active environment, ``app_env``.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    app_env: str = Field(
        default="dev", description="Active environment: demo, test, dev or your own."
    )

    # One Redis server, one logical database per environment.
    redis_url_demo: str = Field(default="redis://localhost:6379/2", description="Redis, demo.")
    redis_url_test: str = Field(default="redis://localhost:6379/3", description="Redis, test.")
    redis_url_dev: str = Field(default="redis://localhost:6379/4", description="Redis, dev.")
    redis_ns_demo: str = Field(default="genonaut_demo", description="Prefix of every key, demo.")
    redis_ns_test: str = Field(default="genonaut_test", description="Prefix of every key, test.")
    redis_ns_dev: str = Field(default="genonaut_dev", description="Prefix of every key, dev.")
    celery_broker_url_demo: str | None = Field(
        default=None, description="Broker, demo; falls back to the Redis URL."
    )
    celery_broker_url_test: str | None = Field(
        default=None, description="Broker, test; falls back to the Redis URL."
    )
    celery_broker_url_dev: str | None = Field(
        default=None, description="Broker, dev; falls back to the Redis URL."
    )
    celery_result_backend_demo: str | None = Field(
        default=None, description="Results, demo; falls back to the Redis URL."
    )
    celery_result_backend_test: str | None = Field(
        default=None, description="Results, test; falls back to the Redis URL."
    )
    celery_result_backend_dev: str | None = Field(
        default=None, description="Results, dev; falls back to the Redis URL."
    )

    database_url_demo: str = Field(
        default="postgresql://postgres@127.0.0.1:54320/genonaut_demo",
        description="PostgreSQL, demo.",
    )
    database_url_test: str = Field(
        default="postgresql://postgres@127.0.0.1:54320/genonaut_test",
        description="PostgreSQL, test.",
    )
    database_url_dev: str = Field(
        default="postgresql://postgres@127.0.0.1:54320/genonaut_dev", description="PostgreSQL, dev."
    )
    database_pool_size: int = Field(
        default=10, ge=1, le=200, description="Pooled connections per API process."
    )

    var_dir: Path = Field(
        default=Path("var"),
        description="Data of embedded servers, pictures, logs; relative to the project.",
    )
    storage_dir: Path | None = Field(
        default=None, description="Pictures; defaults to VAR_DIR/<environment>/storage."
    )
    storage_min_free_mb: int = Field(
        default=200,
        ge=0,
        description="Storing a picture is refused (and retried) below this much free disk, MiB.",
    )
    storage_url: str | None = Field(
        default=None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9/._-]*)?$",
        description="Pictures in an object store: s3://bucket/prefix; unset: in STORAGE_DIR.",
    )
    aws_endpoint_url: str | None = Field(
        default=None, description="Address of an S3-compatible store; unset: Amazon's."
    )
    aws_region: str = Field(default="us-east-1", description="Region of the bucket.")
    aws_access_key_id: str | None = Field(
        default=None, description="Key of the object store; unset: the machine's own role."
    )
    aws_secret_access_key: str | None = Field(
        default=None, description="Secret of the object store's key."
    )
    aws_session_token: str | None = Field(
        default=None, description="Token of the object store's key, where it is a passing one."
    )

    api_host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(default=8001, ge=1, le=65535, description="Port the API listens on.")
    api_workers: int = Field(default=1, ge=1, le=64, description="API processes.")
    api_max_body_kb: int = Field(
        default=2048, ge=64, description="Largest request body, KiB; larger is 413."
    )
    public_url: str | None = Field(
        default=None, description="Address users reach the API at; defaults to API_HOST:API_PORT."
    )
    cookie_secure: bool = Field(
        default=False, description="Mark the session cookie Secure (behind HTTPS: true)."
    )
    session_ttl_hours: int = Field(
        default=24 * 30, ge=1, description="Life of a browser session, hours."
    )
    ticket_ttl_s: int = Field(
        default=60, ge=5, le=600, description="Life of a socket ticket, seconds."
    )

    jobs_per_minute: int = Field(
        default=120, ge=1, description="Jobs a user may create per minute; beyond is 429."
    )
    jobs_unfinished_max: int = Field(
        default=100, ge=1, description="Unfinished jobs a user may have; beyond is 429."
    )
    job_max_attempts: int = Field(
        default=4, ge=1, le=20, description="Attempts per job: 1 + 3 retries."
    )
    job_retry_backoff_s: float = Field(
        default=5.0, gt=0, description="First retry delay, seconds; doubles, with jitter."
    )

    thumbnail_sizes: str = Field(
        default="512,256",
        pattern=rf"^{_EDGE}(,{_EDGE})*$",
        description="Thumbnails every picture has: edges, pixels, comma-separated.",
    )
    thumbnail_formats: str = Field(
        default="webp",
        pattern=r"^(webp|avif|jpeg)(,(webp|avif|jpeg))*$",
        description="And formats: webp, avif, jpeg; a browser is sent the best it takes.",
    )
    import_root: Path | None = Field(
        default=None, description="Folder whose pictures operators may import; unset: none."
    )
    backfill_yields: bool = Field(
        default=False,
        description="Backfills pause while jobs wait and this machine has a generation worker.",
    )

    lease_s: float = Field(
        default=30.0, gt=0, description="A claim holds this long without renewal, seconds."
    )
    lease_renew_s: float = Field(
        default=10.0, gt=0, description="A holder renews its claim this often, seconds."
    )
    lease_grace_s: float = Field(
        default=5.0, ge=0, description="Reaping waits this long past a lease's end, seconds."
    )
    postgres_grace_s: float = Field(
        default=30.0,
        ge=0,
        description="No lease is reaped this long after PostgreSQL was away, seconds; 0: at once.",
    )
    stuck_grace_s: float = Field(
        default=60.0,
        ge=0,
        description="Work is taken from a live worker this long past its hard limit, seconds.",
    )
    reconcile_interval_s: float = Field(
        default=5.0, gt=0, description="Pause between reconciler passes, seconds."
    )
    republish_after_s: float = Field(
        default=60.0,
        gt=0,
        description="A published row unclaimed this long is looked for in the broker, seconds.",
    )
    heartbeat_interval_s: float = Field(
        default=10.0, gt=0, le=15, description="Workers and beat report this often, seconds."
    )

    health_oldest_due_s: float = Field(
        default=600.0, gt=0, description="Health is red when work has waited longer, seconds."
    )
    health_stalled_s: float = Field(
        default=60.0, gt=0, description="Or this long while nobody works on its queue, seconds."
    )

    # How old rows become, days; 0 is for ever.
    retention_read_notifications_days: int = Field(
        default=90, ge=0, le=36500, description="Notifications, from the reading."
    )
    retention_unread_notifications_days: int = Field(
        default=365, ge=0, le=36500, description="Notifications nobody read; not before read ones."
    )
    retention_deliveries_days: int = Field(
        default=90, ge=0, le=36500, description="Digests, checks and tests sent, from their end."
    )
    retention_timelines_days: int = Field(
        default=180, ge=0, le=36500, description="Attempts of a job, from its end; the job stays."
    )
    retention_runs_days: int = Field(
        default=90, ge=0, le=36500, description="Runs of tasks, from their end."
    )
    retention_audit_days: int = Field(
        default=730, ge=0, le=36500, description="The audit log; not before the runs it tells of."
    )
    retention_tokens_days: int = Field(
        default=90, ge=0, le=36500, description="API tokens, from their end or revocation."
    )

    task_soft_time_limit_s: int = Field(
        default=25 * 60, ge=1, description="Soft limit of a generation task, seconds."
    )
    task_time_limit_s: int = Field(
        default=30 * 60, ge=2, description="Hard limit of a generation task, seconds."
    )
    task_packages: str | None = Field(
        default=None,
        description="Python packages with tasks and schedules of your own, comma-separated.",
    )
    worker_max_tasks_per_child: int = Field(
        default=100, ge=1, description="A pool process is replaced after so many tasks."
    )
    worker_shutdown_grace_s: float = Field(
        default=20.0,
        ge=0,
        description="On SIGTERM running jobs get this long before they are released, seconds.",
    )
    generation_concurrency: int | None = Field(
        default=None, ge=1, le=256, description="Generation slots; defaults to ComfyUI servers + 1."
    )

    recommend_weight_view: float = Field(
        default=1.0, ge=0, le=100, description="What a view says for a picture."
    )
    recommend_weight_like: float = Field(
        default=4.0, ge=0, le=100, description="What a like says for it."
    )
    recommend_weight_rate: float = Field(
        default=4.0, ge=0, le=100, description="What five stars say; two or fewer say nothing."
    )
    recommend_weight_download: float = Field(
        default=3.0, ge=0, le=100, description="What a download says."
    )
    recommend_weight_share: float = Field(
        default=4.0, ge=0, le=100, description="What a share says."
    )
    recommend_half_life_days: float = Field(
        default=60.0, gt=0, description="After so many days an interaction counts half."
    )
    recommend_popular_half_life_days: float = Field(
        default=7.0, gt=0, description="The same, for what is popular at the moment."
    )
    recommend_list_size: int = Field(
        default=50, ge=1, le=500, description="Recommendations kept per user."
    )
    recommend_per_creator: int = Field(
        default=5, ge=1, description="Of one creator so many come before the others' turn."
    )
    recommend_seen_factor: float = Field(
        default=0.1, ge=0, le=1, description="What was seen keeps this share of its score."
    )
    recommend_head_items: int = Field(
        default=5000,
        ge=1,
        le=8000,
        description="Items compared each with each; memory grows with the square, time the cube.",
    )
    recommend_regularization: float = Field(
        default=200.0, gt=0, description="How much evidence two items need to count as related."
    )
    recommend_max_fall: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="New lists whose score falls by more than this share are not switched in.",
    )

    comfyui_url: str | None = Field(
        default=None,
        description="ComfyUI servers, comma-separated; unset: the simulator (demo, test, dev).",
    )
    comfyui_connect_timeout_s: float = Field(
        default=3.0, gt=0, description="Connecting to ComfyUI, seconds."
    )
    comfyui_read_timeout_s: float = Field(
        default=10.0, gt=0, description="An answer from ComfyUI, seconds."
    )
    comfyui_poll_interval_s: float = Field(
        default=1.0, gt=0, description="Polling beside the WebSocket, seconds."
    )
    comfyui_execution_timeout: int = Field(
        default=20 * 60,
        ge=1,
        description="A prompt may execute this long, seconds, from execution_start.",
    )
    comfyui_wait_deadline_s: int = Field(
        default=6 * 3600,
        ge=1,
        description="A job waits this long for a ComfyUI that is down, seconds, then fails.",
    )
    comfyui_options_ttl_s: float = Field(
        default=60.0,
        ge=0,
        description="Known checkpoints and samplers are kept this long, seconds.",
    )
    comfyui_allowed_nodes: str = Field(
        default=CORE_NODES,
        description="Node classes a user's own workflow may use, comma-separated.",
    )
    comfyui_webhook_secret: str | None = Field(
        default=None,
        min_length=16,
        description="Key of POST /webhooks/comfyui; unset: the webhook answers 404.",
    )

    secret_key: str | None = Field(
        default=None,
        min_length=32,
        description="Key of webhook secrets and mailed links; unset: one the database keeps.",
    )
    smtp_host: str | None = Field(default=None, description="Mail relay; unset: no mail.")
    smtp_port: int = Field(default=587, ge=1, le=65535, description="Port of the mail relay.")
    smtp_security: Literal["none", "starttls", "tls"] = Field(
        default="starttls", description="How the relay is spoken to: starttls, tls or none."
    )
    smtp_user: str | None = Field(default=None, description="Login at the relay; unset: none.")
    smtp_password: str | None = Field(default=None, description="Password at the relay.")
    mail_from: str | None = Field(
        default=None, description="Sender of mail, such as genonaut@example.org; needed for mail."
    )
    mail_per_minute: int | None = Field(
        default=None, ge=1, description="Mails sent per minute; unset: as fast as the relay takes."
    )
    webhooks_per_minute: int | None = Field(
        default=None, ge=1, description="Webhooks sent per minute; unset: no limit."
    )
    receiver_per_minute: int = Field(
        default=60, ge=1, description="Messages sent to one address per minute; more wait."
    )
    delivery_timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=60,
        description="One webhook or step of a mail, seconds; the mail itself six times, up to 60.",
    )
    delivery_backoff_s: float = Field(
        default=10.0, gt=0, description="First pause after a failed delivery, seconds; doubles."
    )
    webhook_allowed_networks: str | None = Field(
        default=None,
        description="Networks that are not public and may be told, comma-separated: 10.1.0.0/16.",
    )

    simulator_port: int = Field(
        default=8188, ge=1, le=65535, description="Port of the built-in ComfyUI simulator."
    )
    simulator_step_s: float = Field(
        default=0.06, ge=0, description="The simulator's time per sampling step, seconds."
    )
    flower_active: bool = Field(default=True, description="Start Flower beside the workers.")
    flower_port: int = Field(
        default=5555, ge=1, le=65535, description="Port of Flower, loopback only."
    )
    genonaut_token: str | None = Field(
        default=None, description="API token of the command line; demo, test, dev make their own."
    )
    process_name: str | None = Field(
        default=None,
        description="Name of this process among the heartbeats; set by the supervisor.",
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_json: bool = Field(default=False, description="Log lines as JSON instead of text.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what the caller passed, then the process environment over ``env/.env``."""
        return init_settings, _DotEnvSource(settings_cls)

    @field_validator("app_env")
    @classmethod
    def _known_shape(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", value):
            raise ValueError("must be lower-case letters, digits and underscores")
        return value

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _are_networks(cls, value: str | None) -> str | None:
        for network in _listed(value):
            ipaddress.ip_network(network)
        return value

    @field_validator("comfyui_url", "public_url")
    @classmethod
    def _are_web_addresses(cls, value: str | None) -> str | None:
        if not all(_is_web_address(url) for url in _listed(value)):
            raise ValueError("must be http:// or https:// and a host")
        return value

    @field_validator("mail_from")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[!-?A-~]+@[A-Za-z0-9.-]+", value, re.ASCII):
            raise ValueError("must be a bare address, such as genonaut@example.org")
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        level = value.upper()
        if level not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return level

    @model_validator(mode="after")
    def _complete_and_consistent(self) -> Self:
        missing = [
            f"{stem.upper()}_{self.app_env.upper()}"
            for stem in ("redis_url", "redis_ns", "database_url")
            if not self._of_environment(stem)
        ]
        if missing:
            raise ValueError(
                f"environment '{self.app_env}' is not one of {', '.join(BUILT_IN)}, "
                f"and these are not set: {', '.join(missing)}"
            )
        if not _NAMESPACE.match(self.redis_ns):
            raise ValueError(
                f"REDIS_NS_{self.app_env.upper()} must be letters, digits, '_', '.', '-'"
            )
        for name in ("redis_url", "celery_broker_url", "celery_result_backend"):
            if urlsplit(getattr(self, name)).scheme not in {"redis", "rediss"}:
                raise ValueError(f"{name.upper()}_{self.app_env.upper()} must start with redis://")
        if not self.database_url.startswith("postgresql+psycopg2://"):
            raise ValueError(f"DATABASE_URL_{self.app_env.upper()} must start with postgresql://")
        for other in self._environments():
            # Also on two logical databases: channels know no database number.
            if other != self.app_env and self.redis_ns == self._of_environment("redis_ns", other):
                raise ValueError(
                    f"environments '{self.app_env}' and '{other}' share one namespace and so hear "
                    f"each other's events; give REDIS_NS_{self.app_env.upper()} its own value"
                )
        if self.lease_renew_s * 2 > self.lease_s:
            raise ValueError("LEASE_RENEW_S must be at most half of LEASE_S")
        if 0 < self.postgres_grace_s < self.lease_renew_s:
            raise ValueError("POSTGRES_GRACE_S must be 0 or at least LEASE_RENEW_S")
        if self.reconcile_interval_s > self.lease_s:
            raise ValueError("RECONCILE_INTERVAL_S must be at most LEASE_S")
        if self.republish_after_s < self.reconcile_interval_s:
            raise ValueError("REPUBLISH_AFTER_S must be at least RECONCILE_INTERVAL_S")
        if self.task_time_limit_s <= self.task_soft_time_limit_s:
            raise ValueError("TASK_TIME_LIMIT_S must be above TASK_SOFT_TIME_LIMIT_S")
        for shorter, longer in (("READ_NOTIFICATIONS", "UNREAD_NOTIFICATIONS"), ("RUNS", "AUDIT")):
            names = [f"RETENTION_{kind}_DAYS" for kind in (shorter, longer)]
            # 0 is for ever, so the longest of all.
            first, second = (getattr(self, name.lower()) or math.inf for name in names)
            if first > second:
                raise ValueError(f"{names[1]} must be at least {names[0]}; 0 is for ever")
        return self

    def _of_environment(self, stem: str, environment: str | None = None) -> str | None:
        name = f"{stem}_{environment or self.app_env}"
        if name in type(self).model_fields:
            value: str | None = getattr(self, name)
            return value
        return _variables().get(name)

    def _environments(self) -> list[str]:
        """Name every environment that has a namespace, set or built in."""
        stem = "redis_ns_"
        named = {name.removeprefix(stem) for name in _variables() if name.startswith(stem)}
        return sorted({*BUILT_IN, *named})

    def _required(self, stem: str) -> str:
        value = self._of_environment(stem)
        if value is None:  # pragma: no cover - the validator has refused this
            raise ConfigError(f"{stem.upper()}_{self.app_env.upper()} is not set")
        return value

    @property
    def redis_url(self) -> str:
        """URL of the environment's Redis database."""
        return self._required("redis_url")

    @property
    def redis_ns(self) -> str:
        """Prefix of every key and channel, without the colon."""
        return self._required("redis_ns")

    @property
    def celery_broker_url(self) -> str:
        """URL of the broker; the Redis URL unless set."""
        return self._of_environment("celery_broker_url") or self.redis_url

    @property
    def celery_result_backend(self) -> str:
        """URL of the result backend; the Redis URL unless set."""
        return self._of_environment("celery_result_backend") or self.redis_url

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL; a bare ``postgresql://`` gets the psycopg2 driver."""
        url = self._required("database_url")
        for scheme in ("postgresql://", "postgres://"):
            if url.startswith(scheme):
                return "postgresql+psycopg2://" + url.removeprefix(scheme)
        return url

    @property
    def environment_dir(self) -> Path:
        """Where this environment keeps its files, absolute."""
        return self.var_path / self.app_env

    @property
    def var_path(self) -> Path:
        """``var_dir``, absolute."""
        return self.var_dir if self.var_dir.is_absolute() else ROOT / self.var_dir

    @property
    def storage_options(self) -> dict[str, str]:
        """How to reach the object store, in obstore's words."""
        options = {
            "endpoint": self.aws_endpoint_url,
            "region": self.aws_region,
            "access_key_id": self.aws_access_key_id,
            "secret_access_key": self.aws_secret_access_key,
            "session_token": self.aws_session_token,
        }
        return {name: value for name, value in options.items() if value is not None}

    @property
    def storage_path(self) -> Path:
        """Where pictures are kept, absolute."""
        if self.storage_dir is None:
            return self.environment_dir / "storage"
        return self.storage_dir if self.storage_dir.is_absolute() else ROOT / self.storage_dir

    @property
    def comfyui_urls(self) -> tuple[str, ...]:
        """Base URLs of the ComfyUI servers; the simulator's when none is set."""
        if self.comfyui_url:
            return tuple(url.rstrip("/") for url in _listed(self.comfyui_url))
        if self.app_env in BUILT_IN:
            return (f"http://127.0.0.1:{self.simulator_port}",)
        return ()

    @property
    def uses_simulator(self) -> bool:
        """Whether ``genonaut up`` draws with the built-in simulator."""
        return not self.comfyui_url and self.app_env in BUILT_IN

    @property
    def allowed_networks(self) -> tuple[str, ...]:
        """Networks that webhooks may reach though they are not public."""
        return _listed(self.webhook_allowed_networks)

    @property
    def allowed_nodes(self) -> frozenset[str]:
        """Node classes a user's own workflow may use."""
        return frozenset(n.strip() for n in self.comfyui_allowed_nodes.split(",") if n.strip())

    @property
    def extra_task_packages(self) -> tuple[str, ...]:
        """Packages whose modules declare tasks, besides our own."""
        return _listed(self.task_packages)

    @property
    def generation_slots(self) -> int:
        """Generation jobs worked on at once by one worker: ComfyUI servers + 1."""
        return self.generation_concurrency or len(self.comfyui_urls) + 1

    @property
    def base_url(self) -> str:
        """Address users reach the API at, without a trailing slash."""
        if self.public_url:
            return self.public_url.rstrip("/")
        return self.local_url

    @property
    def local_url(self) -> str:
        """Address this machine reaches the API at."""
        any_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        host = any_host.get(self.api_host, self.api_host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.api_port}"

    def is_default(self, stem: str) -> bool:
        """Whether ``stem``'s URL is the built-in default, which an embedded server may serve."""
        if self.app_env not in BUILT_IN:
            return False
        name = f"{stem}_{self.app_env}"
        return bool(getattr(self, name) == type(self).model_fields[name].default)


def _listed(value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (value or "").split(",") if part.strip())


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for what is no number
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not re.search(r"\s", url)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings now.

    Raises: ConfigError: one line naming each variable that is missing or wrong.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            name = ".".join(str(part) for part in item["loc"]).upper()
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name else message)
        raise ConfigError("; ".join(lines)) from error


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Give the process's settings, read once."""
    return load_settings()


def use_settings(values: Mapping[str, str]) -> Settings:
    """Set settings by name for this process and those it starts, over ``env/.env``.

    Raises: ConfigError: one line naming each variable that is missing or wrong.
    """
    os.environ.update({name.upper(): value for name, value in values.items()})  # noqa: TID251
    get_settings.cache_clear()
    return get_settings()


def environment_variables() -> dict[str, str]:
    """Give a copy of the process environment, to start child processes with."""
    return dict(os.environ)  # noqa: TID251


def __getattr__(name: str) -> Settings:
    """Give ``settings`` on first use, so that importing this module never fails."""
    if name == "settings":
        return get_settings()
    raise AttributeError(name)
