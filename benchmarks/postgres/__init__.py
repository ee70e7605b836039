"""Benchmarks on PostgreSQL: a server to measure on, its limits, and text beside jsonb."""
