"""The version, apart from ``zoo`` itself: importing that would close a circle."""

__version__ = "0.1.0"
