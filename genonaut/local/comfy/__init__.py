"""Stand in for ComfyUI: speak its recorded protocol (0.3.64) and draw procedural pictures."""
