"""Helpers that know nothing of engines."""
