"""OpenAI's API on a TCP port, in front of a loaded model."""
