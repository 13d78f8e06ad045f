"""Selects, downloads and caches the best engine for this machine."""
