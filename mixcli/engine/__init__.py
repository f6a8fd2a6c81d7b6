"""The inference engine on llama.cpp; runs inside the host process."""
