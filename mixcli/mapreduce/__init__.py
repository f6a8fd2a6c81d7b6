"""A text that is longer than the context: answered in parts, and the answers combined."""
