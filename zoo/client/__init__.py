"""Finds, verifies and caches the engine that fits this machine."""
