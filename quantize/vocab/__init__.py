"""Vocabularies, special tokens and chat templates."""
