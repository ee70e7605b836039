"""The event loop: one interface over trio and asyncio, and the parts built on it alone."""
