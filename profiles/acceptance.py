"""How often guesses are right and what a draft brings then: for planners, and for the engine, which imports no planner."""

# that a guess of a small model of the family is right: 0.65 to 0.75 for greedy answers (Leviathan et al., "Fast Inference from
# Transformers via Speculative Decoding", 2023, table 2)
ACCEPTANCE = 0.7
STEP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)  # tokens of the steps whose cost is planned


def expected_tokens(acceptance: float, n_drafted: int) -> float:
    """Return the tokens that a step brings with a draft of that length, the one that the model chooses itself included.

    (1 - p^(n+1)) / (1 - p), for guesses that are each right with probability p (Leviathan et al., 2023, equation 1).
    """
    p = min(acceptance, 0.99)
    return (1 - p ** (n_drafted + 1)) / (1 - p)


__all__ = ["ACCEPTANCE", "STEP_SIZES", "expected_tokens"]
