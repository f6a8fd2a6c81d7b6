"""Models: where they come from and where they are stored."""
