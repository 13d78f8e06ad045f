"""Photos to features through an engine."""
