"""The OpenAI-compatible server on a TCP port, in front of a loaded model."""
