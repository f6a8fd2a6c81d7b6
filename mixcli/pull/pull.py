"""mixcli pull: resolve the model, plan the pull, and run it."""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mixcli.errors import NotReachable, UsageError
from mixcli.pull import hub_environment, local_build
from mixcli.pull.pull_plan import PullJob, PullPlan
from mixcli.pull.quant_choice import Target, usual_types
from mixcli.store import build_folder, gguf_names, store
from mixcli.store import file_types as types
from mixcli.store.about import About
from mixcli.store.catalog import CatalogEntry, catalog, entry, file_type
from mixcli.store.hashing import Report
from mixcli.store.hub_cache import name_in_snapshot
from mixcli.store.licenses import license_of
from mixcli.store.reference import Reference, check_text, is_path, is_there
from mixcli.store.store import StoredModel
from mixcli.system import paths
from mixcli.system.formatting import format_bytes
from mixcli.system.offline import is_offline


@dataclass(frozen=True)
class PullRequest:
    """What the command line says: `text` names the model, `quant` a type to make of safetensors, `name` its name in the store.

    With `dry_run` nothing is made at once. `imatrix` is the importance matrix of what is quantized. `placed` are the options of a plan that were given: they choose a type.
    """

    text: str
    quant: str | None = None
    name: str | None = None
    keep_source: bool = False
    dry_run: bool = False
    placed: tuple[str, ...] = ()
    imatrix: Path | None = None


@dataclass(frozen=True)
class Made:
    """A model that is in the store now; `fresh` is False when it was there already."""

    model: StoredModel
    fresh: bool


def pull(wanted: PullRequest, target: Target, report: Report) -> Made | PullPlan | PullJob:
    """Make at once what can be made on this machine, or return the plan of what must come from the Hub; nothing large is fetched yet.

    The summary alone comes back for a dry run of what would be made here.

    Raises UsageError, NotReachable, DoesNotFit or IntegrityError, each with one sentence.
    """
    hub_environment.check()
    check_text(wanted.text)
    if wanted.name is not None:
        wanted = replace(wanted, name=build_folder.check_new(wanted.name))
    path = paths.expanded(wanted.text)
    if _means_a_folder(wanted.text, path):
        return _from_folder(path.resolve(), wanted, target, report)
    if wanted.text.lower().endswith(".gguf") and (
        is_there(path) or wanted.text.count("/") < 2 or wanted.text.startswith((".", "/"))
    ):
        raise UsageError(
            f"{wanted.text} is a GGUF already; use it as it is (-m {wanted.text}), or: mixcli import {wanted.text}"
        )
    if wanted.text.startswith((".", "~", os.sep)):
        what = "is not a folder" if is_there(path) else "does not exist"
        raise UsageError(f"the folder {wanted.text} {what}; use a folder with a checkpoint in safetensors")
    reference = Reference.parse(wanted.text)
    if reference.type and wanted.quant and reference.type != wanted.quant:
        raise UsageError(f"{wanted.text} and --quant {wanted.quant} both name a quant; remove one of them")
    # with a preference another type than that which is here may suit
    is_open = not (reference.type or wanted.quant) and target.is_asked
    is_unknown = reference.name not in catalog() and not (is_open and reference.is_repo)
    if is_unknown and (here := _here(reference, wanted)) is not None:
        return _made(here, False, wanted)  # also what was imported under a name that no hub knows
    known = None if reference.is_repo else entry(reference.name)
    if known and known.builder == "demo":
        if reference.revision:
            raise UsageError(
                f"{known.name} is made on this machine and has no revisions; remove @{reference.revision}"
            )
        said: dict[str, object] = {
            "--dry-run": wanted.dry_run,
            "--keep-source": wanted.keep_source,
            "--name": wanted.name,
            "--imatrix": wanted.imatrix,
        }
        said["--prefer or --min-tps"] = target.is_asked
        said |= dict.fromkeys(wanted.placed, True)
        _check_made_here(wanted, said)
        model, fresh = local_build.demo(known, file_type(known, reference.type or wanted.quant), report)
        return Made(model, fresh)
    if not is_open and (here := _here(reference, wanted)) is not None:
        return _made(here, False, wanted)
    build_folder.check_new(wanted.name or reference.name)
    return _planned(reference, known, wanted, target, report)


def _from_folder(folder: Path, wanted: PullRequest, target: Target, report: Report) -> Made | PullPlan:
    """Make the model of a checkpoint's folder, or return what that means."""
    _check_made_here(wanted, {"--keep-source": wanted.keep_source})
    kind = types.file_type(wanted.quant) if wanted.quant else None
    if wanted.dry_run:
        return local_build.folder_summary(folder, kind, wanted.name, target, wanted.imatrix)
    model, fresh = local_build.from_folder(folder, kind, wanted.name, target, report, wanted.imatrix)
    made = _made(model, fresh, wanted)
    if not fresh:
        local_build.check_same(model, folder)
    return made


def _planned(
    reference: Reference, known: CatalogEntry | None, wanted: PullRequest, target: Target, report: Report
) -> PullPlan | PullJob:
    """Return the plan of what must come from the Hub; for a dry run of a catalog model that cannot reach it, what is known without."""
    kind = reference.type or wanted.quant
    if known and kind and not gguf_names.is_published(kind):
        types.file_type(kind)  # refuses a wrong name before the network is asked
    try:
        return _from_hub(reference, known, wanted, target, report)
    except NotReachable as error:
        if wanted.dry_run and known and (found := _known_plan(known, kind, wanted, target, error)):
            return found
        raise


def _known_plan(
    known: CatalogEntry, file_type: str | None, wanted: PullRequest, target: Target, error: NotReachable
) -> PullPlan | None:
    """Return what a pull of a catalog model means as far as that is known without the Hub; None for a type of unknown size."""
    shapes = usual_types(known.name)
    if file_type is not None and file_type not in shapes:
        return None
    planned = target.choose(shapes, None if file_type is None else [file_type])
    row = planned.chosen or planned.row(file_type or planned.rows[-1].type)
    about = local_build.about_entry(known)
    return PullPlan.of(
        replace(about, name=wanted.name or about.name),
        row.type,
        planned,
        origin=known.safetensors if wanted.quant else known.gguf,
        size=row.size,
        download=row.size,
        disk=row.size,
        notes=(f"the Hub was not reached, so sizes are approximate and files may differ: {error}",),
        named=file_type is not None,
    )


def _made(model: StoredModel, fresh: bool, wanted: PullRequest) -> Made:
    """Return a model; UsageError for an importance matrix where it is there already, made without it or not."""
    if wanted.imatrix and not fresh:
        raise UsageError(
            f"{model.label} is already installed; to quantize it again with --imatrix pass another --name, or remove it: "
            f"mixcli rm {model.label}"
        )
    return Made(model, fresh)


def _check_made_here(wanted: PullRequest, said: Mapping[str, object]) -> None:
    """Raise UsageError for an option that has no effect on what is made on this machine."""
    if named := next((name for name, value in said.items() if value), None):
        raise UsageError(
            f"{named} has no effect on {wanted.text}, which is made on this machine and not downloaded; remove it"
        )


def is_made_here(text: str) -> bool:
    """Return whether a text means what is made on this machine and not downloaded: the folder of a checkpoint, or the demo."""
    known = catalog().get(text.partition(":")[0])
    return _means_a_folder(text, paths.expanded(text)) or (known is not None and known.builder == "demo")


def _means_a_folder(text: str, path: Path) -> bool:
    """Return whether a folder is meant: one that is there, and by a text that is not a name of the catalog or the store."""
    if not is_there(path) or not path.is_dir():
        return False
    return is_path(text) or text.endswith(os.sep) or (text not in catalog() and text not in store.names())


def _here(reference: Reference, wanted: PullRequest) -> StoredModel | None:
    """Find the model that is meant on this machine; a named revision or file must be the one that it came from.

    Raises UsageError where another model has the name that this one is to have.
    """
    name, kind = wanted.name or reference.name, reference.type or wanted.quant
    for model in store.models():
        about = model.manifest
        assert about is not None
        if about.name == name and kind in {None, about.type} and reference.revision in {None, about.revision}:
            if wanted.name is not None and about.origin.partition("@")[0] not in _origins(reference):
                raise build_folder.taken(model, str(reference))
            if reference.file is None or reference.file in map(name_in_snapshot, model.parts):
                return model
    if is_offline() and reference.revision is None:
        return next(
            (model for model in store.everything() if model.label == f"{reference.name}:{kind}"), None
        )
    return None


def _origins(reference: Reference) -> set[str]:
    """Return the repositories that a reference means."""
    known = catalog().get(reference.name)
    return {known.gguf, known.safetensors} if known else {reference.name}


def _from_hub(
    reference: Reference, known: CatalogEntry | None, wanted: PullRequest, target: Target, report: Report
) -> PullJob:
    if is_offline():
        raise _offline(reference, wanted)
    _check_writable()
    from mixcli.pull import hub_client
    from mixcli.pull.gguf_pull import GgufJob, choose

    source = reference.name if known is None else known.safetensors if wanted.quant else known.gguf
    repo = hub_client.look(source, reference.revision or "main")
    stated = repo.license or (known.license if known else None)
    about = About(
        wanted.name or reference.name,
        known.description if known else f"{repo.repo} of the Hugging Face Hub",
        license_of(stated, repo.license_link),
        f"{repo.repo}@{repo.commit}",
        keeper="hub",
        revision=repo.commit,
        prompt=known.prompt if known else "",
        alignment=known.alignment if known else "",
    )
    has_gguf = any(file.name.lower().endswith(".gguf") for file in repo.files)
    has_weights = any(file.name.endswith(".safetensors") for file in repo.files)
    if has_weights and (wanted.quant or not has_gguf):
        kind = wanted.quant or reference.type
        from mixcli.pull.safetensors_pull import quantize_job

        file_type = None if kind is None else types.file_type(kind)
        return quantize_job(
            repo, about, file_type, wanted.keep_source, target, report, imatrix=wanted.imatrix
        )
    if wanted.imatrix:
        raise UsageError(
            f"--imatrix has no effect on {repo.repo}, which has no safetensors to quantize; remove it, or quantize a GGUF of the model: "
            "mixcli quantize"
        )
    if not has_gguf:
        raise UsageError(f"{repo.repo} has neither GGUF nor safetensors files; choose another repository")
    quantizable = repo.repo if has_weights else known.name if known and known.safetensors else ""
    choice = choose(repo, reference.type or wanted.quant, reference.file, target, quantizable=quantizable)
    job = GgufJob(about, repo, choice, wanted.keep_source, quantizable)
    label = job.summary.label
    other = next((model for model in store.models() if model.label == label), None)
    if reference.file and other and not job.needs_repair:  # another file of the same type
        raise build_folder.taken(other, f"{reference}/{reference.file}")
    return job


def _check_writable() -> None:
    """Fail before anything is asked for when nothing could be kept."""
    for folder in (paths.hub_cache_dir(), paths.models_dir()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (
            OSError
        ) as error:  # by the name of the folder that is needed, not of the parent that cannot be made
            raise OSError(error.errno, error.strerror, os.fspath(folder)) from None
        if not os.access(folder, os.W_OK):
            is_fixed = os.statvfs(folder).f_flag & os.ST_RDONLY
            code = errno.EROFS if is_fixed else errno.EACCES
            raise OSError(code, os.strerror(code), os.fspath(folder))


def _offline(reference: Reference, wanted: PullRequest) -> NotReachable:
    """Return what is missing of a model when the Hub may not be asked."""
    from mixcli.pull.gguf_pull import progress_of

    begun = paths.models_dir().glob(
        build_folder.work_folder(wanted.name or reference.name, reference.type or wanted.quant or "*").name
    )
    missing = [cost for work in begun for cost in progress_of(work) if cost.here < cost.size]
    if missing:
        parts = ", ".join(
            f"{cost.name} ({format_bytes(cost.here)} of {format_bytes(cost.size)} downloaded)"
            for cost in missing
        )
        return NotReachable(
            f"{reference} is not complete: {parts}; rerun the command without --offline to download the rest"
        )
    return NotReachable(
        f"{reference} is not installed, and --offline (or HF_HUB_OFFLINE, MIXCLI_OFFLINE) is set"
    )
