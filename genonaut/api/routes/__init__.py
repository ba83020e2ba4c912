"""Hold the endpoints, one file per resource."""
