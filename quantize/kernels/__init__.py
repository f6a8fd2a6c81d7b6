"""Quantizers in numba that write the library's bytes faster."""
