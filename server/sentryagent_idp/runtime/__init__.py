"""Logs, metrics, rate limits, ids, sockets, periodic tasks and the process that runs them."""
