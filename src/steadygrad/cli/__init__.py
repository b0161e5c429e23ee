"""Arguments, exit codes, and one place that turns errors into sentences."""
