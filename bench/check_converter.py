"""Compare quantize/ with llama.cpp's own converter: every tensor byte for byte, every metadata value.

    python -m bench.check_converter UNPACKED_SDIST --python OTHER_VENV/bin/python [--write]

UNPACKED_SDIST is the unpacked source distribution of llama-cpp-python (pip download --no-binary :all: llama-cpp-python); OTHER_VENV is
a virtual environment with torch (the CPU build will do), transformers, sentencepiece and mistral_common, which the converter needs and
mixcli does not. --write keeps the digests as test data.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import quantize.sources.model_source
from quantize.source import ModelSource
from quantize.sources.checkpoint import Layout, open_checkpoint
from quantize.sources.gguf_header import GgufHeader, read_header
from quantize.sources.model_source import model_source
from tests.quantize.converter_cases import CASES, DATA, NOT_COMPARED, digests, value_text

# Where quantize/ means to differ: (case, key) -> why
_NO_CONTEXT = "params.json does not say, and llama.cpp loads no file without it"
_PRE = "llama.cpp takes this default where it is missing"
_TEMPLATE = "a Jinja template, where the converter writes the name of a built-in one"
_TEMPERATURE = "the converter leaves it out, although the model's own code computes it and llama.cpp can"
_SCORES = "byte-pair tokens have none; the converter writes zeros"
MEANT = {
    ("native-v3", "llama.context_length"): _NO_CONTEXT,
    ("native-tekken", "llama.context_length"): _NO_CONTEXT,
    ("native-v3", "tokenizer.ggml.pre"): _PRE,
    ("native-v3", "tokenizer.chat_template"): _TEMPLATE,
    ("native-fp8", "llama.context_length"): _NO_CONTEXT,
    ("native-fp8", "tokenizer.ggml.pre"): _PRE,
    ("native-fp8", "tokenizer.chat_template"): _TEMPLATE,
    **{
        (case, "tokenizer.chat_template"): _TEMPLATE
        for case in CASES
        if "tekken" in case and "large3" not in case
    },
    **{(case, "tokenizer.ggml.scores"): _SCORES for case in CASES if "tekken" in case},
    **{
        (case, f"mistral4.attention.temperature_{key}"): _TEMPERATURE
        for case in ("mistral4", "mistral4-fp8")
        for key in ("scale", "length")
    },
}


# the converter takes a template by the tokenizer's version alone; quantize/ also asks whether a name says that it is for chats
quantize.sources.model_source.trained_for_chat = lambda *_: True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sdist", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--case", choices=CASES, action="append")
    options = parser.parse_args()
    converter = options.sdist / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"
    kept, n_bad = {}, 0
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.case or CASES:
            folder = CASES[name](Path(temporary) / name)
            checkpoint = open_checkpoint(folder)
            theirs = convert(options.python, converter, folder, checkpoint.layout is Layout.MISTRAL)
            ours = model_source(checkpoint)
            kept[name] = digests(ours)
            differences = compare(name, ours, kept[name], read_header(theirs), theirs)
            n_bad += bool(differences)
            print(f"{name}: {'differs' if differences else 'agrees'}, {len(ours.tensors)} tensors")
            for line in differences:
                print(f"    {line}")
            theirs.unlink()
    if options.write and not n_bad:
        before = json.loads(DATA.read_text()) if options.case else {}
        DATA.write_text(
            json.dumps({name: (before | kept)[name] for name in CASES if name in before | kept}, indent=1)
            + "\n"
        )
    return min(n_bad, 1)


def convert(python: str, converter: Path, folder: Path, native: bool) -> Path:
    target = folder.parent / f"{folder.name}.gguf"
    command = [python, str(converter), str(folder), "--outfile", str(target), "--outtype", "bf16"]
    command += ["--mistral-format"] * native
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        raise SystemExit(f"the converter failed on {folder.name}:\n{run.stderr[-3000:]}")
    return target


def compare(
    case: str, ours: ModelSource, hashes: dict[str, Any], theirs: GgufHeader, path: Path
) -> list[str]:
    lines = []
    for key in sorted({*ours.metadata, *theirs.metadata} - {*NOT_COMPARED}):
        mine, other = ours.metadata.get(key), theirs.metadata.get(key)
        shown = [None if value is None else value_text(value) for value in (mine, other)]
        if shown[0] != shown[1] and (case, key) not in MEANT:
            lines.append(f"{key}: here {shown[0]!s:.200}, there {shown[1]!s:.200}")
    names = [tensor.name for tensor in ours.tensors]
    if names != [tensor.name for tensor in theirs.tensors]:
        lines.append(f"tensors: here {names[:5]}, there {[tensor.name for tensor in theirs.tensors][:5]}")
    shapes = {tensor.name: tensor.shape for tensor in ours.tensors}
    with path.open("rb") as file:
        for tensor in theirs.tensors:
            file.seek(tensor.offset)
            digest = hashlib.sha256(file.read(tensor.n_bytes)).hexdigest()
            if shapes.get(tensor.name) != tensor.shape or hashes["tensors"].get(tensor.name) != digest:
                lines.append(
                    f"{tensor.name}: {tensor.type.name} {tensor.shape} there, {shapes.get(tensor.name)} here; bytes differ"
                )
    keys = [key for key in ours.metadata if key in theirs.metadata]
    if (
        "native" not in case
        and "tekken" not in case
        and keys != [k for k in theirs.metadata if k in set(keys)]
    ):
        lines.append("the order of keys differs")
    return lines


if __name__ == "__main__":
    sys.exit(main())
