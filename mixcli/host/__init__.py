"""One process per loaded model, and the client that talks with it."""
