"""Settle which environment a command is about; imports little, so that commands start fast."""

from genonaut.api.config import Settings, get_settings, use_settings


def settings_for(env: str | None) -> Settings:
    """Give the settings of the environment asked for, or of the active one."""
    return get_settings() if env is None else use_settings({"app_env": env})
