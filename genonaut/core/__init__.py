"""Hold what every layer may use; no input or output happens here."""
