"""The terminal REPL."""
