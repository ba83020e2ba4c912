"""Genonaut: the platform around ComfyUI."""

__version__ = "0.1.0"
