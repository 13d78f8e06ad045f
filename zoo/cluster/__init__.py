"""Connections to a Dask cluster, which the farm and feature passes share."""
