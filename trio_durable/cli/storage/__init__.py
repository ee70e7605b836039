"""Access of the commands to a storage, and its formatting for people."""
