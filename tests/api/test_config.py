"""Settings: the process wins over the file, ``${OTHER}`` is filled in, errors are one line."""

import sys

import pytest

from genonaut.api import config
from genonaut.api.config import ConfigError, environment_variables, load_settings

STEMS = ("REDIS_", "CELERY_", "DATABASE_", "COMFYUI_", "APP_ENV", "API_", "LOG_", "STORAGE_")


@pytest.fixture(autouse=True)
def env_file(tmp_path, monkeypatch):
    """Start from an empty environment and write ``env/.env`` where we are."""
    for name in environment_variables():
        if name.startswith(STEMS):
            monkeypatch.delenv(name)
    (tmp_path / "env").mkdir()
    path = tmp_path / "env" / ".env"
    path.write_text("")
    monkeypatch.chdir(tmp_path)
    return path


def test_without_configuration_the_three_environments_work():
    seen = set()
    for number, name in ((2, "demo"), (3, "test"), (4, "dev")):
        settings = load_settings(app_env=name)
        assert settings.redis_url == f"redis://localhost:6379/{number}"
        assert settings.redis_ns == f"genonaut_{name}"
        assert settings.celery_broker_url == settings.celery_result_backend == settings.redis_url
        assert settings.database_url.startswith("postgresql+psycopg2://")
        assert settings.is_default("redis_url")
        assert settings.is_default("database_url")
        seen.add((settings.redis_ns, settings.database_url))
    assert len(seen) == 3
    assert load_settings().app_env == "dev"


def test_the_file_is_read_and_the_process_wins(env_file, monkeypatch):
    env_file.write_text("API_PORT=9001\nLOG_LEVEL=debug\n")
    assert load_settings().api_port == 9001
    assert load_settings().log_level == "DEBUG"
    monkeypatch.setenv("API_PORT", "9002")
    assert load_settings().api_port == 9002
    assert load_settings(api_port=9003).api_port == 9003


def test_a_file_that_is_named_is_read_wherever_we_are(env_file, tmp_path, monkeypatch):
    env_file.write_text("API_PORT=9001\n")
    assert config.env_file() == env_file
    monkeypatch.setenv(config.ENV_FILE, "env/.env")
    assert config.env_file() == env_file
    monkeypatch.setenv(config.ENV_FILE, str(env_file))
    monkeypatch.chdir(tmp_path.parent)
    assert load_settings().api_port == 9001
    monkeypatch.delenv(config.ENV_FILE)
    assert config.env_file() == config.ROOT / "env" / ".env"


def test_other_variables_are_filled_in_and_the_process_wins_there_too(env_file, monkeypatch):
    env_file.write_text(
        "REDIS_URL_DEV=redis://one:6379/4\n"
        "CELERY_BROKER_URL_DEV=${REDIS_URL_DEV}\n"
        "PUBLIC_URL=http://${HOST_NAME:-fallback}:80/\n"
    )
    assert load_settings().celery_broker_url == "redis://one:6379/4"
    assert load_settings().base_url == "http://fallback:80"
    monkeypatch.setenv("REDIS_URL_DEV", "redis://two:6379/9")
    assert load_settings().redis_url == "redis://two:6379/9"
    assert load_settings().celery_broker_url == "redis://two:6379/9"


def test_a_variable_nobody_set_leaves_the_default(env_file):
    env_file.write_text("CELERY_BROKER_URL_DEV=${REDIS_URL_DEV}\n")
    assert load_settings().celery_broker_url == load_settings().redis_url


def test_empty_means_unset(env_file, monkeypatch):
    env_file.write_text("COMFYUI_URL=\nAPI_PORT=\nREDIS_URL_DEV=\n")
    monkeypatch.setenv("DATABASE_URL_DEV", "")
    settings = load_settings()
    assert settings.uses_simulator
    assert settings.api_port == 8001
    assert settings.redis_url == "redis://localhost:6379/4"
    assert settings.is_default("database_url")


def test_an_empty_variable_of_the_process_does_not_hide_the_file(env_file, monkeypatch):
    env_file.write_text("BASE=redis://one:6379\nREDIS_URL_DEV=${BASE}/7\n")
    monkeypatch.setenv("BASE", "")
    assert load_settings().redis_url == "redis://one:6379/7"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_a_bare_database_url_gets_its_driver(scheme):
    settings = load_settings(database_url_dev=f"{scheme}://me:secret@db/x")
    assert settings.database_url == "postgresql+psycopg2://me:secret@db/x"
    assert not settings.is_default("database_url")


def test_broker_and_results_may_live_in_other_databases(monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL_DEV", "redis://localhost:6379/10")
    monkeypatch.setenv("CELERY_RESULT_BACKEND_DEV", "redis://localhost:6379/11")
    settings = load_settings()
    assert settings.redis_url.endswith("/4")
    assert settings.celery_broker_url.endswith("/10")
    assert settings.celery_result_backend.endswith("/11")


def test_an_environment_of_ones_own_reads_its_own_variables(env_file, monkeypatch):
    env_file.write_text("APP_ENV=prod\nREDIS_URL_PROD=redis://r/0\nREDIS_NS_PROD=shop\n")
    monkeypatch.setenv("DATABASE_URL_PROD", "postgres://db/shop")
    settings = load_settings()
    assert settings.redis_url == settings.celery_broker_url == "redis://r/0"
    assert settings.redis_ns == "shop"
    assert settings.database_url == "postgresql+psycopg2://db/shop"
    assert not settings.is_default("redis_url")
    assert settings.comfyui_urls == ()
    assert not settings.uses_simulator


def test_an_unknown_environment_names_what_is_missing_in_one_line(monkeypatch):
    monkeypatch.setenv("APP_ENV", "prod")
    monkeypatch.setenv("REDIS_NS_PROD", "shop")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    line = str(caught.value)
    assert "\n" not in line
    assert "REDIS_URL_PROD" in line
    assert "DATABASE_URL_PROD" in line
    assert "REDIS_NS_PROD" not in line


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("APP_ENV", "Not Good", "APP_ENV"),
        ("API_PORT", "many", "API_PORT"),
        ("API_PORT", "70000", "API_PORT"),
        ("REDIS_URL_DEV", "http://x", "REDIS_URL_DEV"),
        ("CELERY_BROKER_URL_DEV", "amqp://x", "CELERY_BROKER_URL_DEV"),
        ("DATABASE_URL_DEV", "mysql://x", "DATABASE_URL_DEV"),
        ("DATABASE_URL_DEV", "postgresql+psycopg://x/y", "DATABASE_URL_DEV"),
        ("REDIS_NS_DEV", "with:colon", "REDIS_NS_DEV"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL"),
        ("LEASE_RENEW_S", "20", "LEASE_RENEW_S"),
        ("POSTGRES_GRACE_S", "5", "POSTGRES_GRACE_S must be 0 or at least LEASE_RENEW_S"),
        ("RECONCILE_INTERVAL_S", "31", "RECONCILE_INTERVAL_S must be at most LEASE_S"),
        ("REPUBLISH_AFTER_S", "4", "REPUBLISH_AFTER_S must be at least RECONCILE_INTERVAL_S"),
        ("COMFYUI_URL", "gpu-1:8188", "COMFYUI_URL"),
        ("COMFYUI_URL", "http://gpu-1:8188,ws://gpu-2:8188", "COMFYUI_URL"),
        ("COMFYUI_URL", "http://gpu-1:8188 http://gpu-2:8188", "COMFYUI_URL"),
        ("COMFYUI_URL", "http://:8188", "COMFYUI_URL"),
        ("COMFYUI_URL", "http://gpu-1:port", "COMFYUI_URL"),
        ("COMFYUI_URL", "http://[::1", "COMFYUI_URL"),
        ("PUBLIC_URL", "pictures.example", "PUBLIC_URL"),
        ("HEARTBEAT_INTERVAL_S", "16", "HEARTBEAT_INTERVAL_S"),
        ("TASK_TIME_LIMIT_S", "10", "TASK_TIME_LIMIT_S"),
        ("COMFYUI_WEBHOOK_SECRET", "short", "COMFYUI_WEBHOOK_SECRET"),
    ],
)
def test_a_wrong_value_is_told_with_its_name_in_one_line(monkeypatch, name, value, told):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_environments_may_not_share_a_namespace_in_whatever_database(env_file):
    with pytest.raises(ConfigError, match="REDIS_NS_DEV its own"):
        load_settings(redis_ns_dev="genonaut_demo")
    assert load_settings(redis_url_dev="redis://localhost:6379/2").redis_ns == "genonaut_dev"
    env_file.write_text(
        "REDIS_URL_PROD=redis://r/0\nREDIS_NS_PROD=shop\nDATABASE_URL_PROD=postgresql://db/shop\n"
        "REDIS_NS_STAGING=shop\n"
    )
    with pytest.raises(ConfigError, match="'prod' and 'staging' share one namespace"):
        load_settings(app_env="prod")
    assert load_settings().app_env == "dev"


def test_a_file_that_cannot_be_read_is_told(env_file):
    env_file.write_bytes(b"A=\xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot read"):
        load_settings()


def test_paths_are_absolute_and_follow_the_environment(tmp_path):
    settings = load_settings(app_env="demo")
    assert settings.storage_path == config.ROOT / "var" / "demo" / "storage"
    assert load_settings(var_dir=tmp_path).storage_path == tmp_path / "dev" / "storage"
    assert load_settings(storage_dir=tmp_path / "s").storage_path == tmp_path / "s"


@pytest.mark.parametrize("env", ["dev", "prod"])
def test_pictures_of_an_environment_may_have_a_place_of_their_own(env_file, monkeypatch, env):
    env_file.write_text(
        "STORAGE_DIR=/srv/all\nSTORAGE_URL=s3://everyones\n"
        "REDIS_URL_PROD=redis://r/0\nREDIS_NS_PROD=shop\nDATABASE_URL_PROD=postgresql://db/shop\n"
    )
    monkeypatch.setenv("APP_ENV", env)
    assert load_settings().storage_url == "s3://everyones"
    monkeypatch.setenv(f"STORAGE_DIR_{env.upper()}", "/srv/own")
    assert (load_settings().storage_url, str(load_settings().storage_path)) == (None, "/srv/own")
    assert load_settings(app_env="demo").storage_url == "s3://everyones"
    monkeypatch.setenv(f"STORAGE_URL_{env.upper()}", "s3://its-own")
    assert load_settings().storage_url == "s3://its-own"
    assert str(load_settings(storage_dir="/given").storage_path) == "/given"
    monkeypatch.setenv(f"STORAGE_URL_{env.upper()}", "its-own")
    with pytest.raises(ConfigError, match="STORAGE_URL"):
        load_settings()


def test_comfyui_servers_are_a_list_and_decide_the_slots():
    settings = load_settings(comfyui_url="http://a:8188/, http://b:8188")
    assert settings.comfyui_urls == ("http://a:8188", "http://b:8188")
    assert settings.generation_slots == 3
    assert load_settings().generation_slots == 2
    assert load_settings(generation_concurrency=9).generation_slots == 9


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8001"),
        ("::", "http://[::1]:8001"),
        ("::1", "http://[::1]:8001"),
        ("10.1.2.3", "http://10.1.2.3:8001"),
        ("pics.internal", "http://pics.internal:8001"),
    ],
)
def test_the_api_is_reached_where_it_listens_unless_users_have_another_address(host, url):
    settings = load_settings(api_host=host)
    assert settings.base_url == settings.local_url == url
    public = load_settings(api_host=host, public_url="https://pics.example/")
    assert (public.base_url, public.local_url) == ("https://pics.example", url)


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().api_port = 1


def test_the_module_gives_settings_on_first_use_only():
    config.get_settings.cache_clear()
    assert config.settings is config.get_settings()
    config.get_settings.cache_clear()
    with pytest.raises(AttributeError):
        _ = config.nothing_of_the_kind
    assert "genonaut.api.config" in sys.modules
