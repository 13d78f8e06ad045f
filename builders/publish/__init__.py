"""Writes and signs the records and the index of a repository."""
