"""What is known of a model before its files are there."""

from dataclasses import dataclass
from datetime import UTC, datetime

from mixcli.store.licenses import License
from mixcli.store.manifest import Manifest, StoredFile


@dataclass(frozen=True)
class About:
    """What a manifest says of a model beside its files."""

    name: str
    description: str
    license: License
    origin: str
    keeper: str = "mixcli"
    revision: str = ""
    prompt: str = ""
    alignment: str = ""

    def manifest(self, file_type: str, files: tuple[StoredFile, ...]) -> Manifest:
        """Return the manifest of a model of this kind."""
        return Manifest(
            name=self.name,
            type=file_type,
            files=files,
            description=self.description,
            license=self.license.name,
            license_words=self.license.words,
            origin=self.origin,
            created=_now(),
            keeper=self.keeper,
            revision=self.revision,
            prompt=self.prompt,
            alignment=self.alignment,
        )


def _now() -> str:
    """Return the current time as it stands in a manifest."""
    return datetime.now(UTC).isoformat(timespec="seconds")
