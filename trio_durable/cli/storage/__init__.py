"""Access of commands to a storage, and formatting of its values."""
