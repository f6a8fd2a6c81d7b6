"""Write the files that could be the best, measure them on text that was not used to choose, and keep the one that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixcli.insight.perplexity import PerplexityRequest, measure
from mixcli.insight.statistics import Estimate
from mixcli.planning.load_options import LoadOptions
from mixcli.store.store import StoredModel
from mixcli.system.console import Bar
from mixcli.system.json_cache import replace_bytes, replace_text
from mixcli.tailor.fitting import FittedFile
from mixcli.tailor.subject import TailorSubject
from mixcli.tailor.tailoring import Tailoring
from quantize.conversion import Options, prepare_model
from quantize.imatrix import Imatrix
from quantize.plan import WritePlan
from quantize.tailor.recipe_file import TailoredRecipe
from quantize.writer import execute


@dataclass(frozen=True)
class RecipeMaker:
    """What the recipes of one run share: the importance matrix with its file (None for none), and what the file is made for."""

    imatrix: Imatrix | None
    imatrix_path: Path | None
    made_for: str

    def recipe(self, file: FittedFile, file_type: str) -> TailoredRecipe:
        """Return the recipe of a file; `file_type` is the standard type that is nearest to it."""
        if self.imatrix is None:
            return TailoredRecipe(file.types, file_type, made_for=self.made_for)
        return TailoredRecipe(file.types, file_type, self.imatrix.name, self.imatrix.digest, self.made_for)


@dataclass(frozen=True)
class VerifiedFile:
    """A file with its distance from the model on other text: KL divergence in nats, and the share of equal likeliest tokens."""

    file: FittedFile
    recipe: TailoredRecipe
    divergence: Estimate
    agreement: Estimate


def recipe_path(target: Path) -> Path:
    """Return where the recipe of a file stands."""
    return target.with_name(f"{target.name.removesuffix('.gguf')}.recipe.json")


def write(subject: TailorSubject, recipe: TailoredRecipe, maker: RecipeMaker, target: Path, bar: Bar) -> None:
    """Write a file with its recipe beside it; an interrupted write resumes."""
    execute(planned(subject, recipe, maker, target), lambda at: bar.update(at.done, at.total, at.stage))


def planned(
    subject: TailorSubject, recipe: TailoredRecipe, maker: RecipeMaker, target: Path, n_threads: int = 0
) -> WritePlan:
    """Write the recipe beside the target, and return the plan of the file."""
    replace_text(recipe_path(target), recipe.to_json() + "\n", 0o644)
    options = Options(recipe=recipe_path(target), imatrix=maker.imatrix_path, n_threads=n_threads)
    return prepare_model(subject.model, target, options)


def keep_best(
    subject: TailorSubject,
    candidates: Sequence[tuple[FittedFile, TailoredRecipe]],
    maker: RecipeMaker,
    reader: StoredModel,
    request: PerplexityRequest,
    load_options: LoadOptions,
    target: Path,
    bar: Bar,
) -> list[VerifiedFile]:
    """Write one candidate after the other and leave the one of least divergence in `target`; returns all, best first.

    There are never more than two of the files at the same time. A candidate with the types of an earlier one is left out.
    """
    trial = target.with_name(f"{target.name.removesuffix('.gguf')}.trial.gguf")
    found: list[VerifiedFile] = []
    for file, recipe in candidates:
        if any(one.recipe.types == recipe.types for one in found):
            continue
        write(subject, recipe, maker, trial, bar)
        scores = measure(StoredModel(trial), reader, request, load_options, bar)[0]
        assert scores.kl_mean
        assert scores.agreement
        found.append(VerifiedFile(file, recipe, scores.kl_mean, scores.agreement))
        if min(found, key=lambda one: one.divergence.value) is found[-1]:
            trial.replace(target)
            recipe_path(trial).replace(recipe_path(target))
        else:
            trial.unlink()
            recipe_path(trial).unlink()
    return sorted(found, key=lambda one: one.divergence.value)


def within_size(
    tailoring: Tailoring,
    file: FittedFile,
    maker: RecipeMaker,
    file_type: str,
    n_bytes: int,
    target: Path,
) -> FittedFile:
    """Return the file, smaller by its header where the whole would have more than `n_bytes`; DoesNotFit where none is that small."""
    budget = n_bytes
    while (
        over := planned(tailoring.subject, maker.recipe(file, file_type), maker, target).bytes_disk - n_bytes
    ) > 0:
        budget = min(budget, file.n_bytes) - over
        file = tailoring.fitting(tailoring.n_ctx).tailored(tailoring.goal, budget)
    return file


def keep_imatrix(maker: RecipeMaker, target: Path) -> None:
    """Leave the importance matrix beside the file, which its recipe needs."""
    if maker.imatrix_path is not None:
        beside = target.with_name(f"{target.name.removesuffix('.gguf')}.imatrix.gguf")
        replace_bytes(beside, maker.imatrix_path.read_bytes(), 0o644)
