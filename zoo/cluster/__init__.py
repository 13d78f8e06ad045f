"""Connections to a Dask cluster, which the farm and feature passes share."""

from __future__ import annotations

CERTS = "ZOO_FARM_CERTS"
"""Environment variable with the folder of certificates, if no option names it."""
