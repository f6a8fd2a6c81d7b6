"""A model without a chat template is noted, whichever way it comes in."""

import json
from pathlib import Path

from tests.conftest import Runner
from tests.support import small_gguf
from tests.support.checkpoints import write_checkpoint
from tests.support.hub_server import StandIn


def without_template() -> bytes:
    return small_gguf.gguf(
        keys={key: value for key, value in small_gguf.metadata().items() if "template" not in key}
    )


def notes(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("note: ")]


def test_a_checkpoint(hub: StandIn, pull, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny-base", n_layer=1)
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    hub.add("org/tiny-base", {path.name: path.read_bytes() for path in folder.iterdir()})
    for what in (str(folder), "org/tiny-base"):
        done = pull(what, "--quant", "Q8_0")
        assert done.returncode == 0, done.stderr
        (note,) = notes(done.stderr)
        assert note.startswith("note: tiny-base has no chat template"), what
        assert "it is treated as a base model, which continues text" in note


def test_a_gguf(hub: StandIn, pull, mixcli: Runner, tmp_path: Path) -> None:
    model = without_template()
    hub.add("org/plain", {"plain.F16.gguf": model})
    (pulled,) = notes(pull("org/plain").stderr)
    file = small_gguf.write(tmp_path / "plain.F16.gguf", model)
    (imported,) = notes(mixcli("import", str(file)).stderr)
    for note, name in ((pulled, "org/plain"), (imported, "plain")):
        assert (
            note == f"note: {name} has no chat template: it is treated as a base model, which continues text"
        )
    assert notes(mixcli("import", str(file)).stderr) == [], "it is known"
    assert len(json.loads(mixcli("list", "--json").stdout)) == 2
    assert (
        notes(mixcli("import", str(small_gguf.write(tmp_path / "chat.F16.gguf", small_gguf.gguf()))).stderr)
        == []
    )
