"""The open runtime: all parts that exist between entering and leaving, and their order."""
