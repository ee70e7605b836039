"""Delivery of messages between objects: what is sent, what waits in memory, and how it ends."""
