"""Plan several models for one machine: what each takes of its memory, and whether a plan beside others is as good as one alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mixcli.errors import MixcliError
from mixcli.host.protocol.errors import BY_EXIT_CODE
from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.machines import machine_of
from mixcli.planning.plan_load import plan_load
from mixcli.store.store import StoredModel
from mixcli.system.device_facts import worker_of


@dataclass(frozen=True)
class SharedMemory:
    """The memory that models may take together: bytes by device, and whether all devices share the host's."""

    limits: Mapping[str, int]
    is_unified: bool = False

    def needs(self, plan: LoadPlan) -> dict[str, int]:
        """Return what a plan takes of each device, at most all of it: experts that are read from disk take what they get.

        Of a worker it takes all, however little it uses: a worker serves one model at a time.
        """
        total = sum(plan.needs.values())
        needs = dict.fromkeys(self.limits, total) if self.is_unified else plan.needs
        taken = {device: min(n_bytes, self.limits.get(device, 0)) for device, n_bytes in needs.items()}
        workers = plan.placement.workers
        return taken | {device: n for device, n in self.limits.items() if worker_of(device) in workers}


def shared_memory(load_options: LoadOptions) -> SharedMemory:
    """Return the memory that is free now on the machine of these options, or as much as they allow."""
    machine = machine_of(load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    limits = {"host": machine.bytes_free, **{gpu.name: gpu.bytes_free for gpu in machine.gpus}}
    return SharedMemory(limits, machine.unified)


def plan_each(
    models: Iterable[StoredModel], kept: frozenset[str], memory: SharedMemory, load_options: LoadOptions
) -> tuple[dict[str, LoadPlan], dict[str, MixcliError]]:
    """Plan each model as if only the `kept` ones were there besides; return the plans, and why others cannot be loaded, by label.

    The kept ones come first, the smallest of them with the whole machine, as a large one takes all that a GPU has left.
    """
    plans: dict[str, LoadPlan] = {}
    refused: dict[str, MixcliError] = {}
    left = dict(memory.limits)
    for model in sorted(
        models, key=lambda one: (one.label not in kept, size_of(one) if one.label in kept else 0)
    ):
        label = model.label
        try:
            plans[label] = plan_load(model, load_options, left)
        except Exception as error:
            if (exit_code := getattr(error, "exit_code", None)) is None:  # a bug
                raise
            beside = f" beside {', '.join(sorted(kept - {label}))}" if kept - {label} else ""
            refused[label] = BY_EXIT_CODE.get(exit_code, MixcliError)(f"{label}{beside}: {error}")
            continue
        if label in kept:
            needs = memory.needs(plans[label])
            left = {device: n_bytes - needs.get(device, 0) for device, n_bytes in left.items()}
    return plans, refused


def turns(plans: Mapping[str, LoadPlan]) -> list[str]:
    """Return a sentence for each worker that several models are planned with: they take turns."""
    by_worker: dict[str, list[str]] = {}
    for label, plan in plans.items():
        for worker in plan.placement.workers:
            by_worker.setdefault(worker, []).append(label)
    return [
        f"{' and '.join(labels)} are loaded one after the other: {'both' if len(labels) == 2 else 'all'} use the worker {worker}, which serves one model at a time"
        for worker, labels in by_worker.items()
        if len(labels) > 1
    ]


def is_as_good(plan: LoadPlan, alone: LoadPlan) -> bool:
    """Return whether a plan has the context, the cache and the places of another one; the size of its batches may differ."""

    def kept(one: LoadPlan) -> tuple[object, ...]:
        placed = one.placement
        places = placed.n_gpu_layers, placed.tensor_overrides, placed.tensor_split, placed.repack
        return placed.n_ctx, placed.type_k, placed.type_v, *places

    return kept(plan) == kept(alone)


def size_of(model: StoredModel) -> int:
    """Return the bytes of a model's files."""
    return sum(part.stat().st_size for part in model.parts)
