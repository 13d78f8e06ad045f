"""What ``make bench`` measures: this project beside its peers, each number a ratio in one run."""
