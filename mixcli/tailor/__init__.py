"""Make a file for a machine: measure what each type costs, choose the types that fit, write, and verify on other text."""
