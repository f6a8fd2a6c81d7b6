"""What a model does with a text, measured: importance matrices, perplexity, and how far one file is from another."""
