"""Measure ours and a peer or floor side by side; ``docs/performance.md`` says what each means."""
