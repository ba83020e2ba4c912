"""Make one machine enough: embedded servers, supervisor, ComfyUI simulator."""
