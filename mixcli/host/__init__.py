"""The host: one process per loaded model, and its client."""
