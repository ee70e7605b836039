"""The cluster: calls between runtimes of several processes."""
