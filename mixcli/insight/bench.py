"""Measure a model's speed with the plan that a run would use, against the bounds of its devices."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mixcli.errors import DoesNotFit, UsageError
from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight import bench_record, job
from mixcli.insight.bench_record import BenchRun, BenchSample, BenchTest
from mixcli.insight.orders import BenchOrder
from mixcli.planning.cpu_rates import with_rates
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.machines import check_devices, machine_of
from mixcli.planning.plan_load import plan_load
from mixcli.store.headers import header_of, shape_of
from mixcli.store.store import StoredModel
from mixcli.system.console import Bar, console
from mixcli.system.formatting import format_bytes
from mixcli.system.hardware import this_machine
from profiles.layout import Layout, layout_of
from profiles.ledger import accounts, shortage
from profiles.machine import Machine
from profiles.request import SEQUENCES
from profiles.roofline import decode_roof, devices_of, prefill_roof
from profiles.shape import ModelShape

HOST = "host"
MAX_TESTS = 256


@dataclass(frozen=True)
class BenchRequest:
    """Numbers of tokens of prefill and of decode, depths, texts that decode together, and repetitions."""

    prompts: tuple[int, ...]
    tokens: tuple[int, ...]
    depths: tuple[int, ...] = (0,)
    batches: tuple[int, ...] = (1,)
    n_repeats: int = 5

    def tests(self) -> tuple[BenchTest, ...]:
        """Return the tests: at each depth prefill, then decode with each number of texts. UsageError for none, or too many."""
        each = (
            test
            for depth in self.depths
            for test in (
                *(BenchTest("prefill", n, depth) for n in self.prompts if n),
                *(BenchTest("decode", n, depth, b) for n in self.tokens if n for b in self.batches),
            )
        )
        found = tuple(dict.fromkeys(each))
        if not found:
            raise UsageError("-p 0 and -n 0 leave nothing to measure; pass one above 0")
        if len(found) > MAX_TESTS:
            raise UsageError(f"{len(found):,} tests are more than {MAX_TESTS}; pass fewer numbers")
        return found


class Bench:
    """A model that is measured: `run` has what was measured so far, also after an interruption."""

    def __init__(self, stored: StoredModel, request: BenchRequest, load_options: LoadOptions) -> None:
        """Plan the load. Raises UsageError for a --ctx that is too small, and the errors of a plan."""
        self._stored, self._request = stored, request
        self._tests = request.tests()
        self._plan = planned(stored, load_options, self._tests)
        for reason in self._plan.reasons:
            console.note(reason)
        self._shape = shape_of(header_of(stored.parts))
        self._machine = machine_of(
            load_options.profile,
            load_options.vram,
            load_options.ram,
            load_options.workers,
            shapes=[self._shape],
        )
        self._layout = layout_of(self._shape, self._plan.placement, self._machine)
        here = self._machine
        if load_options.profile not in (None, "auto"):
            check_devices(self._gpus(), load_options, estimate="--dry-run")
            here = this_machine(load_options.workers)
            here = with_rates(here, [self._shape], console.note)
            self._machine = _with_rates_of(here, self._machine)
        if not self._plan.expected:  # its context is longer than a plan may have it
            self._check_fit()
        self.run = BenchRun(
            bench_record.now(),
            stored.label,
            sum(part.stat().st_size for part in stored.parts),
            self._plan.placement.to_json(),
            _described(here),
            {},
        )

    def _check_fit(self) -> None:
        """Raise DoesNotFit where the cache of several texts takes more than a device has."""
        found = accounts(self._shape, self._machine, self._plan.placement, self._layout)
        if lack := shortage(found, self._machine):
            device, n_bytes = lack
            raise DoesNotFit(
                f"the KV cache of {self._plan.placement.n_ctx:,} tokens does not fit: {device} lacks "
                f"{format_bytes(n_bytes)}; pass fewer texts with --batch, or a smaller --depth"
            )

    def _gpus(self) -> tuple[str, ...]:
        """Return llama.cpp's names of the GPUs that the plan uses."""
        return tuple(
            self._machine.gpus[i].name for i in sorted(devices_of(self._layout) - {self._layout.host})
        )

    def measure(self, bar: Bar) -> None:
        """Measure all tests in a child process; raises what ends it, and `run` keeps what came before."""
        order = BenchOrder(
            self._stored.path.absolute(), self._plan, self._tests, self._request.n_repeats, self._gpus()
        )
        job.run(order, self._stored.label, bar, self._take)

    def _take(self, found: Mapping[str, object]) -> None:
        """Take one result of the child: the bandwidths, or a sample."""
        match dict(found):
            case {"bandwidths": dict() as rates, "is_smaller": is_smaller}:
                if is_smaller and self._plan.smaller:
                    self._plan = self._plan.smaller
                    self._layout = layout_of(self._shape, self._plan.placement, self._machine)
                found_rates = self._with_known(rates)
                self.run = replace(self.run, bandwidths=found_rates, placement=self._plan.placement.to_json())
            case {"test": int() as number, "rate": float() as rate, "others": others}:
                test = self._tests[number]
                sample = BenchSample(rate, others if isinstance(others, float) else None)
                self.run = self.run.with_sample(test, sample, self._roof(test))

    def _with_known(self, rates: Mapping[str, float]) -> dict[str, float]:
        """Return the bandwidth of each used device; host memory reads at least as fast as its products were measured."""
        found = dict(rates)
        if HOST in found:
            products = [layout.decode for one in self._machine.rates.types for layout in one.layouts]
            found[HOST] = max(found[HOST], *products, 0.0)
        return found

    def _roof(self, test: BenchTest) -> float | None:
        """Return the bound of a test; None where a device that the plan uses was not measured."""
        names = [*(gpu.name for gpu in self._machine.gpus), HOST]
        used = devices_of(self._layout)
        if any(names[i] not in self.run.bandwidths for i in used):
            return None
        rates = [self.run.bandwidths.get(name, 1.0) for name in names]
        return roof_of(test, self._shape, self._machine, self._plan, self._layout, rates)


def roof_of(
    test: BenchTest,
    shape: ModelShape,
    machine: Machine,
    plan: LoadPlan,
    layout: Layout,
    bandwidths: Sequence[float],
) -> float | None:
    """Return the bound of a test in tok/s, by the measured GB/s of the devices, the host's last."""
    if test.kind == "prefill":
        return prefill_roof(shape, machine, plan.placement, layout, bandwidths, test.n_tokens, test.depth)
    n_cells = test.depth + test.n_tokens // 2
    return decode_roof(shape, plan.placement, layout, bandwidths, n_cells, test.n_batch)


def planned(stored: StoredModel, load_options: LoadOptions, tests: Sequence[BenchTest]) -> LoadPlan:
    """Return the plan that a run would use, or, where its context has no room for a test, the same for a longer one."""
    plan = plan_load(stored, load_options)
    n_cells, n_texts = max(one.n_cells for one in tests), max(one.n_batch for one in tests)
    if plan.placement.n_ctx >= n_cells and plan.placement.n_sequences >= n_texts:
        return plan
    largest = max(tests, key=lambda one: one.n_cells)
    if load_options.request.n_ctx is not None and load_options.request.n_ctx < n_cells:
        raise UsageError(
            f"--ctx {load_options.request.n_ctx:,} has no room for {largest.words}: {n_cells:,} tokens; "
            "pass a larger --ctx, or fewer tokens"
        )
    n_cells = max(n_cells, plan.placement.n_ctx)
    # several texts may be longer together than the model was trained on, one may not
    n_train, longest = shape_of(header_of(stored.parts)).n_ctx_train, max(tests, key=lambda one: one.n_text)
    if n_train and longest.n_text > n_train:
        raise UsageError(
            f"{longest.words} needs {longest.n_text:,} tokens, and the model was trained on {n_train:,}; "
            "pass a smaller --depth, or fewer tokens"
        )
    n_ctx = min(n_cells, n_train) if n_train else n_cells
    request = replace(load_options.request, n_ctx=n_ctx, n_seq_max=max(SEQUENCES, n_texts))
    plan = plan_load(stored, replace(load_options, request=request))
    console.note(f"planned for a context of {n_cells:,} tokens, which {largest.words} needs")
    if n_ctx == n_cells:
        return plan
    return replace(plan, placement=replace(plan.placement, n_ctx=n_cells), expected={}, smaller=None)


def _with_rates_of(here: Machine, planned: Machine) -> Machine:
    """Return the machine of a profile with the processor and the cards that compute here: roofs are those of what is measured."""
    cards = {gpu.name: gpu for gpu in here.gpus}
    gpus = tuple(
        replace(gpu, tflops=cards[gpu.name].tflops, bandwidth=cards[gpu.name].bandwidth)
        if gpu.name in cards
        else gpu
        for gpu in planned.gpus
    )
    return replace(planned, rates=here.rates, n_cores=here.n_cores, gpus=gpus)


def _described(machine: Machine) -> str:
    cards = ", ".join(gpu.description or gpu.name for gpu in machine.gpus)
    return f"{machine.n_cores} cores ({platform.machine()})" + (f", {cards}" if cards else "")
