"""The cluster: links between the nodes that share one database."""
