"""Schema: the closed sets that records, targets and decisions are made of, and their tables."""
