"""The HTTP APIs of a host: one module of routes for each, over one way to answer."""
