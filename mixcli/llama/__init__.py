"""Everything that touches libllama, behind a small typed face."""
