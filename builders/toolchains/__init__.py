"""Chooses the runtime that builds for an architecture: installed, remote or in a container."""
