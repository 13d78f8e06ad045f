"""Messages and files between the farm and its workers; what workers return is not trusted."""
