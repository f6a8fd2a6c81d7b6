"""The facts of a machine, as a result of bench/ has them."""

MACHINE = {
    "cpu": "a fast one",
    "cores": 2,
    "memory_gib": 24,
    "system": "Linux 6",
    "llama-cpp-python": "0.3.36",
    "numba": "none",
    "date": "2026-11-30",
}
