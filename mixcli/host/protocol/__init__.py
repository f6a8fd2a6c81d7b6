"""The contract between a host process and its clients."""
