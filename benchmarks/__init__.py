"""Benchmarks and studies, which run from a checkout and are not part of the farm."""
