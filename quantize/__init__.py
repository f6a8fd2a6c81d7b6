"""A checkpoint becomes a GGUF: read, map, quantize, write."""
