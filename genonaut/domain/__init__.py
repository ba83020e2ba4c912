"""Hold the rules of each feature: plain functions on a session."""
