"""What goes into cache keys. Imports nothing heavy."""
