"""llama.cpp behind a small typed face; runs inside the host process."""
