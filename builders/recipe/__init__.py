"""Inputs of cache keys. Imports nothing heavy."""
