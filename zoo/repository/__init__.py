"""Where engines and records are stored, by the repository's path layout."""
