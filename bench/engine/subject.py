"""The two models that are measured, and how they are loaded: the same numbers for both sides."""

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.peers import Peers
from profiles.placement import Placement
from tests.support.synthetic import shape_named, write_model

N_THREADS = 2
N_BATCH, N_UBATCH = 2048, 512  # llama.cpp's defaults
N_LAYER = 4  # of the synthetic one: 3.5 GiB
N_SEQ = 64  # sequences of a host that many clients use at once


@dataclass(frozen=True)
class Subject:
    """A model to measure. `is_small` says that the whole amount of work can be asked of it; a large one gets a share."""

    name: str
    path: Path
    is_small: bool

    @cached_property
    def ends(self) -> dict[str, float]:
        """Return the logit_bias that keeps an answer from ending before its time."""
        from mixcli.llama.model import Model

        with Model.load_vocab(self.path) as model:
            return {str(t): -100.0 for t in range(model.vocab.n_tokens) if model.vocab.is_end(t)}


@dataclass(frozen=True)
class Setting:
    """What every scenario is given: the model, llama.cpp's programs, and a folder to work in."""

    subject: Subject
    peers: Peers
    folder: Path


def placement(
    n_ctx: int = 4096, n_seq_max: int = 1, *, repack: bool = True, flash_attn: bool = True
) -> Placement:
    """Return our side's placement; `peer_options` says the same to llama.cpp's programs, which use flash attention as is their default.

    For one reader the planner goes without flash attention on a machine like this.
    """
    return Placement(
        n_ctx=n_ctx,
        n_batch=N_BATCH,
        n_ubatch=N_UBATCH,
        n_seq_max=n_seq_max,
        n_threads=N_THREADS,
        n_threads_batch=N_THREADS,
        flash_attn=flash_attn,
        repack=repack,
    )


def peer_options(subject: Subject) -> list[str]:
    """Return the options that llama-batched-bench and llama-server share."""
    threads = ["-t", str(N_THREADS), "-tb", str(N_THREADS)]
    return ["-m", str(subject.path), *threads, "-b", str(N_BATCH), "-ub", str(N_UBATCH), "-fa", "on"]


def demo(folder: Path) -> Subject:
    """Return the demo at Q4_K_M, made by `mixcli pull` when it is not there."""
    home = folder / "home"
    path = home / "data" / "models" / "demo--Q4_K_M" / "demo-Q4_K_M.gguf"
    if not path.is_file():
        environment = {**os.environ, "MIXCLI_HOME": str(home)}
        command = [sys.executable, "-m", "mixcli", "pull", "-q", "demo:Q4_K_M"]
        subprocess.run(command, check=True, env=environment)
    return Subject("demo", path, is_small=True)


def true_shape(folder: Path) -> Subject:
    """Return the synthetic Mixtral with the layer shapes of 8x7B at Q4_K_M, made when it is not there."""
    path = folder / f"mixtral-{N_LAYER}-layers-Q4_K_M.gguf"
    if not path.is_file():
        print(f"making {path.name}", flush=True)
        write_model(path, shape_named("mixtral-8x7b", N_LAYER))
    return Subject("true-shape", path, is_small=False)


SUBJECTS = {"demo": demo, "true-shape": true_shape}
