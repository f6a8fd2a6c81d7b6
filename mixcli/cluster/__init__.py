"""Ray: the connection to a cluster, one engine per GPU or node, and the replicas of `serve --ray`."""
