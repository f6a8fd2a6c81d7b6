"""How a chat is drawn on a terminal."""
