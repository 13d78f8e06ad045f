"""What earlier runs left: failures, durations, and what nights say of themselves."""
