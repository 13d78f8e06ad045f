"""Maintainers' measurements of published engines."""
