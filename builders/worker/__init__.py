"""Executes one job in its own process: ``python -m builders.worker JOB OUTPUT``."""
