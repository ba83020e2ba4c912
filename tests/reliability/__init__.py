"""The reliability contract (docs/reliability.md), case by case, with real processes."""
