"""Programs that are killed at random moments; `python -m tests.kill` runs them."""
