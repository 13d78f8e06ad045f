"""Feature extraction from photos with an engine."""
