"""Hardware profiles and the planner that places a model's tensors on devices. Standard library only."""
