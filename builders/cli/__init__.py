"""The ``zoo-farm`` command line: arguments to typed requests, and printing."""
