"""Get models: from the Hub, from a checkpoint folder, from a package."""
