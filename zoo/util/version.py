"""The package version, in its own module to avoid a circular import of ``zoo``."""

__version__ = "0.1.0"
