"""Convert a checkpoint or a GGUF to a GGUF of any type: open, choose types, plan, write."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from quantize.errors import NeedsOption, Unsupported, UnusedOption
from quantize.ggml_types import BLOCK, GGMLQuantizationType
from quantize.imatrix import read_imatrix
from quantize.output_target import output_target, refuse_foreign
from quantize.plan import WritePlan, plan_write
from quantize.recipe import FILE_TYPES, GOOD_SOURCES, checked_type, choose_types, stored_types, tensor_type
from quantize.source import ModelSource, TensorSource, Value
from quantize.sources.checkpoint import open_checkpoint
from quantize.sources.gguf_source import open_gguf
from quantize.sources.model_source import model_source
from quantize.sources.repair import MIXED
from quantize.sources.rows import FP8
from quantize.sources.upcycle import upcycle
from quantize.tailor.recipe_file import KEY, TailoredRecipe, read_recipe
from quantize.writer import Progress, WriteReport, check_own_files, execute

COPY = "COPY"
DEFAULT_TYPE = "Q4_K_M"
_FLOATS = {"F32", "F16", "BF16", "F64"}
_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


@dataclass(frozen=True)
class Options:
    """What to make of a source.

    `output_type` is a file type such as "Q4_K_M"; COPY keeps every tensor of a GGUF as it is; None means Q4_K_M for a checkpoint and
    COPY for a GGUF. `tensor_types` are (regular expression over tensor names, tensor type), first match wins. `imatrix` is a file. `recipe` is a
    file that has the type of every tensor (see tailor/recipe_file.py), in place of an output type.
    `upcycle_experts` makes a dense checkpoint a mixture of that many experts, router drawn with `seed`. `max_memory` and
    `split_max_size` are bytes (0: one file); `n_threads` 0 means one for each core.
    """

    output_type: str | None = None
    pure: bool = False
    imatrix: Path | None = None
    token_embedding_type: str | None = None
    output_tensor_type: str | None = None
    tensor_types: tuple[tuple[str, str], ...] = ()
    allow_requantize: bool = False
    upcycle_experts: int = 0
    seed: int = 0
    n_threads: int = 0
    max_memory: int = 1 << 30
    split_max_size: int = 0
    recipe: Path | None = None


def convert(
    source: Path,
    target: Path,
    options: Options | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> WriteReport:
    """Convert a checkpoint folder or a GGUF file to the GGUF file `target`.

    One pass, no file in between; the same call resumes after a kill. Raises CorruptFile, Unsupported, NoSpace or QuantizeError, each
    with one sentence for a person.
    """
    return execute(prepare(Path(source), Path(target), options or Options()), progress)


def prepare(source: Path, target: Path, options: Options) -> WritePlan:
    """Do everything but the work: open the source, choose every type, place every byte (what a dry run shows)."""
    named, target = target, output_target(target)
    if options.output_type is None and _is_gguf(source) and not options.recipe:
        options = replace(options, output_type=COPY)
    model = open_model(source, options)
    sources = [*model.files, *filter(None, (options.imatrix, options.recipe))]
    plan = prepare_model(model, target, options)
    for file in plan.files:  # shards have names of their own
        output_target(named if file.path == target else file.path, sources)
        refuse_foreign(file.path)
    check_own_files(plan, sources)
    return plan


def prepare_model(model: ModelSource, target: Path, options: Options) -> WritePlan:
    """Do the same for a model that is open already."""
    imatrix = read_imatrix(options.imatrix) if options.imatrix else None
    wanted = options.output_type or DEFAULT_TYPE
    metadata: Mapping[str, Value] = {}
    if options.recipe or wanted.upper() != COPY:  # a recipe that the source has is not that of the result
        model = replace(model, metadata={key: value for key, value in model.metadata.items() if key != KEY})
    if options.recipe:
        recipe = read_recipe(options.recipe)
        imatrix = recipe.matching(imatrix)
        types, wanted, metadata = _of_recipe(model, recipe, options), recipe.file_type, recipe.metadata()
    elif wanted.upper() == COPY:
        _check_nothing_chosen(options)
        types, wanted = _stored(model), _stored_file_type(model)
    else:
        types = choose_types(
            model,
            wanted,
            pure=options.pure,
            imatrix=imatrix is not None,
            token_embedding_type=options.token_embedding_type,
            output_tensor_type=options.output_tensor_type,
            tensor_types=options.tensor_types,
        )
        if not options.allow_requantize:
            _check_sources(model, types)
        _check_chosen(model, types, options)
    return plan_write(
        model,
        target,
        types,
        wanted,
        imatrix=imatrix,
        metadata=metadata,
        n_threads=options.n_threads,
        max_memory=options.max_memory,
        split_max_size=options.split_max_size,
    )


def open_model(source: Path, options: Options) -> ModelSource:
    """Open `source`: a folder with a checkpoint, or a GGUF file."""
    if source.suffix.lower() in _PICKLED:
        raise Unsupported(
            f"{source} is a pickle file, which can run code when opened; download the model as safetensors or GGUF"
        )
    if _is_gguf(source):
        if options.upcycle_experts:
            raise UnusedOption(f"{source} is a GGUF; upcycling needs a dense checkpoint folder")
        return open_gguf(source)
    checkpoint = open_checkpoint(source)
    if options.upcycle_experts:
        checkpoint = upcycle(checkpoint, options.upcycle_experts, seed=options.seed)
    return model_source(checkpoint)


def _is_gguf(source: Path) -> bool:
    return not source.is_dir() and source.suffix.lower() not in {".safetensors", ".json"}


def _stored(model: ModelSource) -> dict[str, GGMLQuantizationType]:
    for tensor in model.tensors:
        if MIXED in tensor.dtype:
            raise NeedsOption(
                f"{tensor.where}: its experts have different types ({tensor.dtype}) and cannot be merged without loss; "
                "pass --output-type and --allow-requantize"
            )
    return stored_types(model)


def _stored_file_type(model: ModelSource) -> str:
    """Name the file type of a copy: what the source says, or else what most of its weights are."""
    value = model.metadata.get("general.file_type")
    names = {number: name for name, number in FILE_TYPES.items()}
    if value is not None and value.value in names:
        return names[value.value]
    sizes: dict[str, int] = {}
    for tensor in model.tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.n_elements
    dominant = max(sizes, key=lambda name: sizes[name])
    return next((name for name in FILE_TYPES if name.startswith(dominant)), "BF16")


def _of_recipe(
    model: ModelSource, recipe: TailoredRecipe, options: Options
) -> dict[str, GGMLQuantizationType]:
    """Return the types of a recipe, for the model that it was made for."""
    if options.output_type:
        raise UnusedOption(
            f"the recipe has the type of every tensor; remove {options.output_type}, or --recipe"
        )
    if named := next(_said(options), None):
        raise UnusedOption(
            f"{named} has no effect with --recipe, which has the type of every tensor; remove {named}"
        )
    recipe.check_model(model.tensors)
    types = {tensor.name: checked_type(recipe.types[tensor.name], tensor) for tensor in model.tensors}
    if not options.allow_requantize:
        _check_sources(model, types)
    return types


def _said(options: Options) -> Iterator[str]:
    """Yield the options about types that a person gave, but for --imatrix."""
    said = {
        "--pure": options.pure,
        "--token-embedding-type": options.token_embedding_type,
        "--output-tensor-type": options.output_tensor_type,
        "--tensor": options.tensor_types,
    }
    return (name for name, value in said.items() if value)


def _check_nothing_chosen(options: Options) -> None:
    """Refuse options about types where every tensor keeps its own."""
    if named := next(_said(options), "--imatrix" if options.imatrix else None):
        raise UnusedOption(
            f"{named} has no effect if every tensor keeps its type (COPY); choose an output quant or remove {named}"
        )


def _check_chosen(model: ModelSource, types: dict[str, GGMLQuantizationType], options: Options) -> None:
    """Refuse an override that decides no tensor's type, and an importance matrix where nothing is quantized."""
    if options.imatrix and all(type_.name in _FLOATS for type_ in types.values()):
        raise UnusedOption(
            f"--imatrix has no effect on {options.output_type}, which quantizes nothing; remove it"
        )
    matrices = [tensor for tensor in model.tensors if len(tensor.shape) > 1]
    for option, pattern, name in (
        ("--token-embedding-type", r"^token_embd\.weight$", options.token_embedding_type),
        ("--output-tensor-type", r"^(output|token_embd)\.weight$", options.output_tensor_type),
    ):
        if name and not _decides([one for one in matrices if _matches(pattern, one.name)], name, types):
            raise UnusedOption(f"{option} {name} has no effect on this model; remove it")
    for number, (pattern, name) in enumerate(options.tensor_types):
        earlier = [other for other, _ in options.tensor_types[:number]]
        matching = [one for one in matrices if _matches(pattern, one.name)]
        taken = [one for one in matching if not any(_matches(other, one.name) for other in earlier)]
        if not _decides(taken, name, types):
            why = (
                "matching tensors keep another type"
                if taken
                else "an earlier --tensor matches the same tensors"
                if matching
                else "no matrix matches"
            )
            raise UnusedOption(f"--tensor {pattern:.200}={name} has no effect: {why}; remove it")


def _decides(tensors: list[TensorSource], name: str, types: dict[str, GGMLQuantizationType]) -> bool:
    """Return whether a type that was asked for is that of a tensor; where its blocks fit into none, llama.cpp takes one near it."""
    wanted = tensor_type(name)
    fitting = [tensor for tensor in tensors if tensor.shape[-1] % BLOCK[wanted][0] == 0]
    return bool(tensors) and (not fitting or any(types[tensor.name] == wanted for tensor in fitting))


def _matches(pattern: str, name: str) -> bool:
    """Return whether llama.cpp, whose regular expressions are JavaScript's, finds a pattern in a name; True where Python cannot tell."""
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return True


def _check_sources(model: ModelSource, types: dict[str, GGMLQuantizationType]) -> None:
    """Refuse to requantize tensors of a low-precision type."""
    good = {type_.name for type_ in GOOD_SOURCES} | {FP8}
    for tensor in model.tensors:
        if tensor.dtype != types[tensor.name].name and not good.issuperset(tensor.dtype.split(MIXED)):
            raise NeedsOption(
                f"{tensor.where} is {tensor.dtype} already and would lose more quality as {types[tensor.name].name}; "
                "start from BF16, F16 or Q8_0, or pass --allow-requantize"
            )


__all__ = ["COPY", "DEFAULT_TYPE", "Options", "convert", "open_model", "prepare", "prepare_model"]
