"""The picture of sizes and divergences: where points stand, and that no name covers another."""

from mixcli.insight.picture import PlottedModel, drawn


def test_sizes_go_to_the_right_and_divergences_up() -> None:
    lines = drawn(
        [PlottedModel("Q8_0", 8_000_000_000, 1e-3), PlottedModel("Q2_K", 3_000_000_000, 1e-1)],
        width=30,
        height=5,
    )
    assert lines == [
        "   KL",
        "  0.1 │         • Q2_K",
        "      │",
        "      │",
        "      │",
        "0.001 │                        • Q8_0",
        "      └─────────────────────────────",
        "       0                       8.0 GB",
    ]


def test_names_at_one_place_stand_below_each_other() -> None:
    models = [PlottedModel(f"model-{i}", 5_000_000_000 + i, 0.01 + i * 1e-9) for i in range(4)]
    text = "\n".join(drawn(models, height=4))
    assert all(text.count(f"• {one.name}") == 1 for one in models)
