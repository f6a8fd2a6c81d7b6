"""What a result says of one question or field, with its probability: what thresholds, evaluation, calibration and review read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mixcli.host.protocol.messages import Fields, count_in, object_of
from mixcli.request.json_fields import parts, path_name, value_text
from mixcli.request.output_format import OutputFormat
from mixcli.request.probability import Probability

Temperature = Callable[[str], float]  # of a question or field, by its name


@dataclass(frozen=True)
class Graded:
    """A label or field as the model wrote it, its probability where that is known, and the least one with which it counts."""

    value: object
    probability: Probability | None = None
    threshold: float = 0.0

    @property
    def is_abstained(self) -> bool:
        return self.probability is not None and self.probability.value < self.threshold

    @property
    def text(self) -> str:
        """Return the value as people write it."""
        return value_text(self.value)

    def gold_text(self, gold: str) -> str:
        """Return a gold value as this field would have written it: true for TRUE, 3 for 3.0."""
        gold = gold.strip()
        if isinstance(self.value, bool) or self.value is None:
            return gold.lower() if gold.lower() in ("true", "false", "null") else gold
        if isinstance(self.value, int | float):
            try:
                return self.text if float(gold) == self.value else gold
            except ValueError:
                return gold
        return gold


def tempered(outcome: Fields, name: str, temperature: Temperature) -> dict[str, object]:
    """Return an outcome with the probabilities at their temperatures; `name` is that of the question, empty where there is one."""
    told = dict(outcome)
    labels, fields = told.get("label_probs"), told.get("field_probs")
    if isinstance(labels, dict) and labels:
        told["label_probs"] = dict(Probability(0.0, labels).tempered(temperature(name)).values)
    if isinstance(fields, dict):
        told["field_probs"] = {
            path: found.tempered(temperature(joined(name, path))).to_json()
            for path, one in fields.items()
            if (found := Probability.of(one)) is not None
        }
    return told


def graded(outcome: Fields, name: str, form: OutputFormat) -> dict[str, Graded]:
    """Return the labels and fields of an outcome by their names; of free text, and of JSON without probabilities, what is known."""
    result = outcome.get("result")
    labels = object_of(outcome.get("label_probs"))
    if labels:
        numbers = {label: one for label, one in labels.items() if isinstance(one, int | float)}
        label = result if result in numbers else max(numbers, key=numbers.__getitem__)
        chosen = Probability(numbers[str(label)], numbers)
        return {name: Graded(label, chosen, form.abstain)}
    if not form.schema:
        return {name: Graded(result)}
    probabilities = {
        path: found
        for path, one in object_of(outcome.get("field_probs")).items()
        if (found := Probability.of(one)) is not None
    }
    return {
        joined(name, path): _field(value, probabilities.get(path), path, form)
        for path, value in ((path_name(path), value) for path, value in parts(result))
    }


def joined(question: str, path: str) -> str:
    """Return the name of a field of a question's answer; of the only question that of the field."""
    if not question:
        return path
    return question + path if path.startswith("[") else f"{question}.{path}"


def _field(value: object, found: Probability | None, path: str, form: OutputFormat) -> Graded:
    return Graded(value, found, form.threshold(path, found) if found is not None else 0.0)


def _abstained(name: str, one: Fields) -> list[str]:
    """Return what a question's result abstains from: its label, or some fields."""
    if "label_probs" in one:
        return [name] * (one.get("result") is None)
    low = one.get("abstained")
    return [joined(name, path) for path in low] if isinstance(low, list) else []


def by_name(temperatures: Mapping[str, float]) -> Temperature:
    """Return the temperature of a name, 1 where none was fitted."""
    return lambda name: temperatures.get(name, 1.0)


def columns(decided: Mapping[str, Fields]) -> dict[str, object]:
    """Return the results of several questions as one: each field of a result has a value for each question that has it; counts are added up."""
    said: dict[str, object] = {"result": {name: one.get("result") for name, one in decided.items()}}
    for key in ("label_probs", "field_probs", "finish_reason"):
        if there := {name: one[key] for name, one in decided.items() if key in one}:
            said[key] = there
    abstained = [path for name, one in decided.items() for path in _abstained(name, one)]
    if abstained:
        said["abstained"] = abstained
    usages = [object_of(one.get("usage")) for one in decided.values()]
    names = dict.fromkeys(name for usage in usages for name in usage)
    return {**said, "usage": {name: sum(count_in(usage.get(name)) for usage in usages) for name in names}}
