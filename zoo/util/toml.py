"""``tomllib``, or its backport tomli on Python 3.10."""

import sys

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

__all__ = ["toml"]
