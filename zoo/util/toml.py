"""TOML on every Python that clients run on: the standard library's reader, or tomli on 3.10."""

import sys

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

__all__ = ["toml"]
