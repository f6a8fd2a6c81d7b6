"""Super-blocks of 16 times 16 weights, as Hypothesis draws them."""

import hypothesis.strategies as st

USUAL = (0.0, -0.0, 1.0, -1.0, 0.5)


def super_blocks(value: st.SearchStrategy[float], *odd: float) -> st.SearchStrategy[list[list[float]]]:
    """Draw sub-blocks of any value, of usual and `odd` ones, and of one value throughout."""
    sub_block = st.one_of(
        st.lists(value, min_size=16, max_size=16),
        st.lists(st.sampled_from([*USUAL, *odd]), min_size=16, max_size=16),
        st.builds(lambda v: [v] * 16, value),
    )
    return st.lists(sub_block, min_size=16, max_size=16)
