"""Benchmarks and studies. No part of the farm."""
