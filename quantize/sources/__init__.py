"""What is read: checkpoint folders, safetensors, GGUF files and their shards."""
