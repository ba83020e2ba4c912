"""The pages: rendered here, live over one socket, usable without scripts."""
