"""Hardware profiles and the planner that decides what lives where. Standard library only."""
