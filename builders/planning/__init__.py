"""What is wanted, what is there, and what is to be done and why. Pure; nothing is written."""
