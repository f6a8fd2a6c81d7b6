"""Map-reduce over a text longer than the context: answer its parts, then combine the answers."""
