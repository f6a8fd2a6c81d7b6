"""Messages become token ids, and tokens become text."""
