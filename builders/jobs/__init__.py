"""Jobs: what passes between the farm and its workers, none of which is trusted."""
