"""Earlier runs: failures, durations and summaries of nights."""
