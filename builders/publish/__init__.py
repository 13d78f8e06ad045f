"""Records, index and signatures: what a repository says about its engines."""
