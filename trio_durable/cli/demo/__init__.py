"""``trio-durable demo``: a process is killed under load, and its data is audited."""
