#!/usr/bin/env python3
"""Run the steps of deploy/Dockerfile by hand, where no container engine is: as root, on Debian, with debootstrap.

    sudo python3 deploy/check_dockerfile.py WORK [--llama-wheels FOLDER]

Each stage gets a root of its own under WORK, a copy of one that debootstrap made, and its ARG, ENV, WORKDIR, RUN, COPY and USER steps are
carried out there in a chroot. Then the last stage is tried as its user: the README's first five minutes, the server that CMD starts with a
key, and HEALTHCHECK. --llama-wheels offers pip wheels that are compiled already; without it llama.cpp is compiled, as in a real build.
What this cannot show: the images that FROM names (the base is debootstrap's bookworm), and a GPU.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent
SUITE = "bookworm"
# how this machine reaches Debian's archive and PyPI
NETWORK_FILES = ("etc/resolv.conf", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
NETWORK_VARIABLES = re.compile(
    r"(PIP_(?!NO_)|UV_)\w+|\w+_proxy|SSL_CERT_\w+|REQUESTS_CA_BUNDLE", re.IGNORECASE
)
MOUNTS = ("proc", "dev")
KEY = "a-key-of-sixteen-characters-or-more"
WORDS = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass
class Stage:
    """One FROM: its folder, and what later steps see of earlier ones."""

    name: str
    root: Path
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "root"
    last: dict[str, list[str]] = field(default_factory=dict)  # HEALTHCHECK, ENTRYPOINT, CMD


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Yield (instruction, rest) of a Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        yield name, rest.strip()


def filled(text: str, values: dict[str, str]) -> str:
    """Replace $NAME and ${NAME}, as Docker does outside RUN; an unknown name becomes nothing."""
    return WORDS.sub(lambda match: values.get(match[1] or match[2], ""), text)


def pairs(text: str) -> dict[str, str]:
    """Read NAME=VALUE NAME="VALUE"."""
    return dict(word.split("=", 1) for word in shlex.split(text) if "=" in word)


class Builder:
    """The stages of one Dockerfile, made one after the other."""

    def __init__(self, work: Path, context: Path, wheels: Path | None) -> None:
        self._work, self._context, self._wheels = work, context, wheels
        self._base = work / "base"
        self._outside: dict[str, str] = {}  # ARG before the first FROM
        self.stages: list[Stage] = []

    def run(self, text: str) -> Stage:
        """Carry out all steps; returns the last stage."""
        self._make_base()
        for name, rest in steps(text):
            begin = time.monotonic()
            say(f"{name} {rest[:150]}")
            getattr(self, f"_{name.lower()}")(rest)
            if (seconds := time.monotonic() - begin) > 5:
                say(f"    {seconds:.0f} s")
        return self.stages[-1]

    def _make_base(self) -> None:
        if not (self._base / "etc/debian_version").exists():
            call(["debootstrap", "--variant=minbase", SUITE, str(self._base)])

    @property
    def _stage(self) -> Stage:
        return self.stages[-1]

    def _arg(self, rest: str) -> None:
        name, _, value = rest.partition("=")
        values = self._stage.args if self.stages else self._outside
        values[name] = shlex.split(value)[0] if value else self._outside.get(name, "")

    def _from(self, rest: str) -> None:
        image, *alias = re.split(r"\s+AS\s+", filled(rest, self._outside), flags=re.IGNORECASE)
        name = alias[0] if alias else f"stage{len(self.stages)}"
        if not image.startswith("debian:"):
            sys.exit(f"only Debian's images can be made by debootstrap, not {image}")
        root = self._work / name
        shutil.rmtree(root, ignore_errors=True)
        call(["cp", "-a", "--reflink=auto", str(self._base), str(root)])
        self.stages.append(Stage(name, root))
        if self._wheels:
            shutil.copytree(self._wheels, root / "wheels")

    def _env(self, rest: str) -> None:
        self._stage.env |= pairs(filled(rest, self._stage.env | self._stage.args))

    def _workdir(self, rest: str) -> None:
        self._stage.folder = rest
        (self._stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _user(self, rest: str) -> None:
        self._stage.user = rest

    def _run(self, rest: str) -> None:
        stage = self._stage
        given = {name: value for name, value in os.environ.items() if NETWORK_VARIABLES.fullmatch(name)}
        if self._wheels:
            given["PIP_FIND_LINKS"] = "/wheels"
        for file in filter(
            lambda name: Path("/", name).exists(), NETWORK_FILES
        ):  # again: packages replace some
            (stage.root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path("/", file), stage.root / file)
        with mounted(stage.root):
            call(in_root(stage, rest, given | stage.args))

    def _copy(self, rest: str) -> None:
        *options, target = shlex.split(rest)
        source, sources = self._context, options
        if options[0].startswith("--from="):
            name, sources = options[0].removeprefix("--from="), options[1:]
            source = next(stage.root for stage in self.stages if stage.name == name)
        place = Path(target) if target.startswith("/") else Path(self._stage.folder, target)
        there = self._stage.root / str(place).lstrip("/")
        for one in sources:
            path = source / one.lstrip("/")
            if path.is_dir():
                there.parent.mkdir(parents=True, exist_ok=True)
                call(["cp", "-a", "-T", str(path), str(there)])
            else:
                there.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, there)

    def _volume(self, rest: str) -> None:
        assert (self._stage.root / rest.lstrip("/")).is_dir(), f"{rest} does not exist"

    def _expose(self, rest: str) -> None:
        assert rest.isdigit(), rest

    def _healthcheck(self, rest: str) -> None:
        self._stage.last["HEALTHCHECK"] = json.loads(rest[rest.index("[") :])

    def _entrypoint(self, rest: str) -> None:
        self._stage.last["ENTRYPOINT"] = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        self._stage.last["CMD"] = json.loads(rest)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def call(words: list[str]) -> None:
    """Run a program; a failure ends the check."""
    code = subprocess.run(words, check=False, stdin=subprocess.DEVNULL).returncode
    if code:
        sys.exit(f"exit code {code}: {shlex.join(words)[:300]}")


def in_root(stage: Stage, script: str, more: dict[str, str] | None = None) -> list[str]:
    """Return the command that runs a script in a stage, with its environment only, as its user."""
    known = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp"}
    env = [f"{name}={value}" for name, value in (known | (more or {}) | stage.env).items()]
    shell = ["/bin/sh", "-ec", f"cd {shlex.quote(stage.folder)}; {script}"]
    return ["chroot", f"--userspec={stage.user}", str(stage.root), "env", "-i", *env, *shell]


@contextmanager
def mounted(root: Path) -> Iterator[None]:
    """Mount what programs expect, for as long as the block lasts."""
    done = []
    try:
        for name in MOUNTS:
            call(["mount", "--rbind", "--make-rslave", f"/{name}", str(root / name)])
            done.append(root / name)
        yield
    finally:
        for place in reversed(done):
            subprocess.run(["umount", "-l", str(place)], check=False)


def try_it(stage: Stage, readme: Path) -> None:
    """Follow the README in the finished image, start its server as CMD does, and ask it as HEALTHCHECK does."""
    for file in (DEPLOY / "first_minutes.py", readme):
        shutil.copyfile(file, stage.root / "tmp" / file.name)
    with mounted(stage.root):
        call(in_root(stage, "python3 /tmp/first_minutes.py /tmp/README.md"))
        call(in_root(stage, "mixcli pull -q demo"))  # into the volume
        refused = subprocess.run(
            in_root(stage, shlex.join(words_of(stage))), check=False, stdin=subprocess.DEVNULL
        )
        assert refused.returncode == 2, f"without a key: {refused.returncode}"
        server = subprocess.Popen(
            in_root(stage, f"exec {shlex.join(words_of(stage))}", {"MIXCLI_API_KEY": KEY})
        )
        try:
            wait_until_healthy(stage)
        finally:
            server.terminate()
            code = server.wait(60)
    say(f"the server ended with {code} after SIGTERM")
    assert code == 0


def words_of(stage: Stage) -> list[str]:
    return [*stage.last["ENTRYPOINT"], *stage.last["CMD"]]


def wait_until_healthy(stage: Stage, seconds: float = 300) -> None:
    """Ask as HEALTHCHECK does until it answers."""
    script = shlex.join(stage.last["HEALTHCHECK"])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not subprocess.run(in_root(stage, script), check=False, capture_output=True).returncode:
            return say("HEALTHCHECK: healthy")
        time.sleep(1)
    return sys.exit("HEALTHCHECK: not healthy in time")


def main() -> None:
    """Build and try."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--llama-wheels", type=Path)
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("chroot needs root")
    with suppress(FileExistsError):
        options.work.mkdir(parents=True)
    builder = Builder(options.work.resolve(), DEPLOY.parent, options.llama_wheels)
    stage = builder.run((DEPLOY / "Dockerfile").read_text("utf-8"))
    try_it(stage, DEPLOY.parent / "README.md")
    say(f"the Dockerfile's steps work; its last stage is {stage.root}")


if __name__ == "__main__":
    main()
