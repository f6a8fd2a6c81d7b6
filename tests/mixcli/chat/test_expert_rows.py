"""What /experts draws of a model's routing."""

from mixcli.chat.commands.model import MAX_DRAWN, spread


def test_few_experts_are_all_drawn_in_order() -> None:
    rows = spread([(3, 1, 0, 0), (0, 2, 2, 0)], 4, 1)
    assert rows[0] == "1 of 4 experts per token; uniform use would be 25.0 % each"
    assert [row.split()[1] for row in rows[1:5]] == ["0", "1", "2", "3"]
    assert rows[5:] == ["layer 0   0: 75 %, 1: 25 %", "layer 1   1: 50 %, 2: 50 %"]


def test_of_many_experts_only_the_most_used_and_dense_layers_not_at_all() -> None:
    counts = tuple(i if i >= 100 else 0 for i in range(128))
    head, *rows = spread([(0,) * 128, counts], 128, 4)
    assert head.startswith("4 of 128 experts")
    assert [int(row.split()[1]) for row in rows[:MAX_DRAWN]] == list(range(127, 127 - MAX_DRAWN, -1))
    left = sum(range(100, 112)) / sum(range(100, 128))
    assert rows[MAX_DRAWN:] == [
        f"112 others {100 * left:.1f} % together, 100 experts never used",
        "layer 1   127: 4 %, 126: 4 %, 125: 4 %",
    ]


def test_an_expert_below_half_a_percent_is_no_favorite() -> None:
    assert spread([(996, 4, 0)], 3, 1)[-1] == "layer 0   0: 100 %"


def test_nothing_routed_yet_is_drawn_as_nothing() -> None:
    assert len(spread([(0, 0)], 2, 1)) == 3
