"""Plans with workers: one that is not used is left alone, and one that is used serves no other model."""

from dataclasses import replace

from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.planning.beside import SharedMemory, turns
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.workers import plan_with_workers, with_only, without_held
from profiles.machine import Gpu, Machine
from profiles.memory import GIB
from profiles.placement import Placement
from profiles.planner import Plan, plan
from profiles.request import PlanRequest
from tests.profiles.file_choices import shapes

A, B = "a:1", "b:2"
WORKERS = tuple(
    Gpu(f"RPC0[{address}]", 20 * GIB, "rpc", bandwidth=200.0, tflops=20.0, link=1.0, round_trip=trip)
    for address, trip in ((A, 0.0002), (B, 30.0))
)


def planned(machine: Machine) -> Plan:
    return plan(shapes("mixtral")["Q4_K_M"], machine, PlanRequest(n_ctx=4096))


def test_a_worker_that_the_plan_does_not_use_is_not_connected() -> None:
    """The second one is half a minute away."""
    machine = Machine(16 * GIB, 8, gpus=WORKERS, workers=(A, B))
    found, used = plan_with_workers(machine, planned)
    assert found.placement.workers == used.workers == (A,)
    assert [account.device for account in found.ledger] == ["RPC0[a:1]", "host"]
    assert found.reasons[-1].startswith(f"the worker {B} is not used")
    assert len(found.placement.tensor_split) in (0, 1)


def test_without_workers_nothing_is_planned_twice() -> None:
    calls: list[Machine] = []

    def plan_on(machine: Machine) -> Plan:
        calls.append(machine)
        return planned(machine)

    machine = Machine(64 * GIB, 8, gpus=(Gpu("CUDA0", 8 * GIB),))
    found, same = plan_with_workers(machine, plan_on)
    assert (len(calls), same, found.placement.workers) == (1, machine, ())


def test_other_devices_stay() -> None:
    machine = Machine(GIB, 1, gpus=(*WORKERS, Gpu("CUDA0", GIB)), workers=(A, B))
    left = with_only(machine, (B,))
    assert [gpu.name for gpu in left.gpus] == ["RPC0[b:2]", "CUDA0"]
    assert left.workers == (B,)


def test_a_worker_that_is_used_is_taken_whole_and_not_asked_for_another_model() -> None:
    limits = {"host": 100, "RPC0[a:1]": 50, "RPC1[a:1]": 40, "RPC0[b:2]": 30}
    memory = SharedMemory(limits)
    plan = LoadPlan(Placement(workers=(A,)), {}, needs={"host": 10, "RPC0[a:1]": 5})
    needs = memory.needs(plan)
    assert needs == {"host": 10, "RPC0[a:1]": 50, "RPC1[a:1]": 40}
    left = {device: n_bytes - needs.get(device, 0) for device, n_bytes in limits.items()}
    options = LoadOptions(PlanRequest(), workers=(A, B))
    assert without_held(options, left).workers == (B,)
    assert without_held(options, limits).workers == (A, B)


def test_models_that_share_a_worker_are_told_to_take_turns() -> None:
    one = LoadPlan(Placement(workers=(A, B)))
    plans = {
        "red": one,
        "green": replace(one, placement=Placement()),
        "blue": LoadPlan(Placement(workers=(B,))),
    }
    assert [note.split(":")[0] for note in turns(plans)] == ["red and blue are loaded one after the other"]
