"""The model that reads texts for a tailored file: the one that is there, or for a checkpoint a GGUF that is made when it is first needed."""

import hashlib
from dataclasses import replace
from pathlib import Path

from mixcli.store.store import StoredModel
from mixcli.system.console import console
from mixcli.tailor.subject import TailorSubject
from quantize.conversion import Options, prepare_model
from quantize.errors import QuantizeError
from quantize.source import text
from quantize.sources.gguf_header import read_header
from quantize.sources.input_file import fingerprint_of
from quantize.writer import execute

TYPE = "Q8_0"  # of the file that a checkpoint is read with: half the size of BF16, and nearly as good
KEY = "mixcli.made_from"  # of its metadata: the fingerprint of the checkpoint


class TextReader:
    """Reads in place of a subject. What is made is beside the result, and stays until `remove`, so that an interrupted run resumes."""

    def __init__(self, subject: TailorSubject, beside: Path) -> None:
        self._subject = subject
        self._path = beside.with_name(f"{beside.name}.reading.gguf")

    @property
    def identity(self) -> str:
        """Return what tells this reader's results from those of another one of the same subject."""
        there = self._subject.reader
        if there is None:
            return TYPE
        return hashlib.sha256(b"".join(map(fingerprint_of, there.parts))).hexdigest()

    def model(self) -> StoredModel:
        """Return the model, made now where it is not there; an interrupted write resumes."""
        if self._subject.reader is not None:
            return self._subject.reader
        fingerprint = self._subject.model.fingerprint
        if self._made_from() != fingerprint:  # an interrupted run for another checkpoint may have left one
            model = self._subject.model
            marked = replace(model, metadata={**model.metadata, KEY: text(fingerprint)})
            plan = prepare_model(marked, self._path, Options(output_type=TYPE))
            title = f"converting {self._subject.name} to {TYPE} for the measurement"
            with console.progress(title, unit="bytes") as bar:
                execute(plan, lambda at: bar.update(at.done, at.total, at.stage))
        return StoredModel(self._path)

    def remove(self) -> None:
        """Remove what was made."""
        if self._made_from() is not None:
            self._path.unlink(missing_ok=True)

    def _made_from(self) -> object:
        """Return the fingerprint of the checkpoint that the file was made from; None where there is no such file."""
        try:
            return read_header(self._path).get(KEY)
        except QuantizeError:
            return None


__all__ = ["TextReader"]
