"""Benchmarks of a cluster: ``python -m benchmarks.cluster``."""
