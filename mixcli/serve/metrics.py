"""One page for Prometheus of several hosts: the numbers of each with its model, or its replica, as a label, and those of the port itself."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Gauge:
    """A number of the port for each value of one label; `is_total` says that it only grows."""

    name: str
    help: str
    label: str
    values: Mapping[str, float]
    is_total: bool = False


def merged(pages: Mapping[str, str], own: Iterable[Gauge], *, label: str = "model") -> bytes:
    """Return the numbers of hosts, whose pages come by the values of a label, and the port's own, in Prometheus' text form."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(pages, own, label))
    return generate_latest(registry)


class _Collector:
    """What one page shows."""

    def __init__(self, pages: Mapping[str, str], own: Iterable[Gauge], label: str) -> None:
        self._pages, self._own, self._label = pages, own, label

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
        from prometheus_client.parser import text_string_to_metric_families

        for gauge in self._own:
            family: CounterMetricFamily | GaugeMetricFamily
            if gauge.is_total:
                family = CounterMetricFamily(f"mixcli_{gauge.name}", gauge.help, labels=[gauge.label])
            else:
                family = GaugeMetricFamily(f"mixcli_{gauge.name}", gauge.help, labels=[gauge.label])
            for value, number in gauge.values.items():
                family.add_metric([value], number)
            yield family
        families: dict[str, Metric] = {}
        for value, page in self._pages.items():
            for found in text_string_to_metric_families(page):
                for sample in found.samples:
                    sample.labels[self._label] = value
                if found.name in families:
                    families[found.name].samples += found.samples
                else:
                    families[found.name] = found
        yield from families.values()
