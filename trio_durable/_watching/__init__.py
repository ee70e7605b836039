"""Watching: the latest durable state of each watched object, and the tasks that wait for it."""
