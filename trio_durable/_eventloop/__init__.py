"""The event loop: one interface over trio and asyncio, and what is built on it alone."""
