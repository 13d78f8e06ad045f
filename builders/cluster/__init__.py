"""Clusters: certificates, the scheduler, workers that say what they can build."""
