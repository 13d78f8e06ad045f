"""Which installed, remote or containerised runtime builds for which architecture."""
