"""What runs on this machine: the models that are loaded, the ports that serve them, and how a terminal shows that."""
