"""The engine against llama.cpp's own programs and the bindings' high-level class, same machine, same minutes, same threads."""
