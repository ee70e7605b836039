"""``trio-durable demo``: kill a process under load, again and again, and count what is left."""
