"""What a process needs while it runs: logs, metrics, limits, periodic tasks and the process for them."""
