"""Talk to systems outside the process."""
