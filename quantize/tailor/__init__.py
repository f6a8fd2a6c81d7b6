"""Choose a type for every tensor from measured errors: the table of errors, what they cost, the allocation, the recipe."""
