"""Accuracy, F1, confusion and calibration, against figures worked out by hand."""

import pytest

from mixcli.batch.evaluation import Evaluation
from mixcli.batch.graded import Graded
from mixcli.request.probability import Probability


def evaluated() -> Evaluation:
    evaluation = Evaluation()
    for gold, answer, share in [
        ("spam", "spam", 0.95),
        ("spam", "spam", 0.95),
        ("spam", "ham", 0.65),
        ("ham", "ham", 0.65),
        ("ham", "spam", 0.55),
        ("news", "ham", 0.95),
    ]:
        others = {label: (1 - share) / 2 for label in ("spam", "ham", "news") if label != answer}
        evaluation.add(gold, Graded(answer, Probability(share, {answer: share, **others})))
    return evaluation


def test_accuracy_and_f1() -> None:
    evaluation = evaluated()
    assert evaluation.accuracy == pytest.approx(3 / 6)
    assert evaluation.scores("spam") == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert evaluation.scores("ham") == pytest.approx((1 / 3, 1 / 2, 2 / 5))
    assert evaluation.scores("news") == (0, 0, 0)
    assert evaluation.macro_f1 == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)


def test_confusion_has_gold_in_rows() -> None:
    confusion = evaluated().to_json()["confusion"]
    assert confusion["spam"] == {"ham": 1, "spam": 2}
    assert confusion["news"] == {"ham": 1, "spam": 0}


def test_calibration() -> None:
    """Bins: 0.5 (0 of 1 right), 0.6 (1 of 2), 0.9 (2 of 3)."""
    evaluation = evaluated()
    assert evaluation.calibration_error == pytest.approx((abs(0 - 0.55) + abs(1 - 1.30) + abs(2 - 2.85)) / 6)
    assert [row["n"] for row in evaluation.to_json()["calibration"]] == [1, 2, 3]
    assert Evaluation().calibration_error is None


def test_what_was_abstained_from_is_wrong_and_what_failed_is_left_out() -> None:
    evaluation = Evaluation()
    evaluation.add("a", Graded("a", Probability(0.5, {"a": 0.5, "b": 0.5}), threshold=0.6))
    evaluation.add("a", Graded("a"))
    evaluation.add("a", None)
    evaluation.add(None, Graded("a"))
    evaluation.add("", Graded("a"))
    assert (evaluation.n, evaluation.n_without, evaluation.accuracy) == (2, 3, 0.5)
    assert evaluation.to_json()["n_abstained"] == 1
    assert evaluation.labels == ["a"]


def test_a_label_that_is_called_abstain_is_a_label() -> None:
    """Votes: yes, no, abstain. It is no abstention of the model, and such a one is not right for it."""
    evaluation = Evaluation()
    evaluation.add("abstain", Graded("abstain"))
    evaluation.add("yes", Graded("abstain"))
    assert (evaluation.labels, evaluation.to_json()["n_abstained"]) == (["abstain", "yes"], 0)
    assert (evaluation.accuracy, evaluation.macro_f1) == (0.5, pytest.approx((2 / 3 + 0) / 2))
    unsure = Graded("yes", Probability(0.5, {"yes": 0.5, "abstain": 0.5}), threshold=0.6)
    evaluation.add("abstain", unsure)
    evaluation.add(" ", unsure)
    assert (evaluation.accuracy, evaluation.n, evaluation.n_without) == (pytest.approx(1 / 3), 3, 1)
    assert evaluation.to_json()["confusion"]["abstain"] == {"abstain": 1, "(abstain)": 1}
    assert "(abstain)" in evaluation.text()


def test_the_text_has_every_figure() -> None:
    text = evaluated().text()
    for figure in (
        "6 records",
        "accuracy 0.500",
        "macro-F1 0.356",
        "calibration error",
        "0.667",
        "gold \\ answer",
    ):
        assert figure in text
    assert Evaluation().text().startswith("0 records")


def test_texts_have_no_tables() -> None:
    """Of a thousand names the matrix would have a million places."""
    evaluation = Evaluation()
    for i in range(1000):
        evaluation.add(f"name {i}", Graded(f"name {i + i % 2}", Probability(0.3, n_tokens=4)))
    assert evaluation.accuracy == 0.5
    assert "1,001 different values" in evaluation.text()
    assert len(evaluation.text().splitlines()) < 8
    assert (evaluation.to_json()["labels"], evaluation.to_json()["confusion"]) == ({}, {})
