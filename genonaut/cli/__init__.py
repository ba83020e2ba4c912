"""The command line: ``genonaut``."""

from genonaut.cli.app import main

__all__ = ["main"]
