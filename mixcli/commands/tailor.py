"""mixcli tailor: make the file of a model that suits this machine best."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixcli.commands.completion import complete_models
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import (
    BUILT_IN_TEXT,
    NAME_OR_PATH,
    TEXT_FILE,
    common,
    json_option,
    planning_options,
)
from mixcli.commands.perplexity import estimate_cell, significant
from mixcli.commands.quant_options import as_range
from mixcli.errors import DoesNotFit, UsageError
from mixcli.system.console import console
from mixcli.system.formatting import counted, format_bytes, size_in_bytes
from mixcli.system.signals import resumable
from mixcli.system.text import as_argument, not_a_file

if TYPE_CHECKING:
    from mixcli.planning.load_options import LoadOptions
    from mixcli.tailor.fitting import FittedFile, TailorGoal
    from mixcli.tailor.measuring import PassResult
    from mixcli.tailor.subject import TailorSubject
    from mixcli.tailor.tailoring import ContextTable, Tailoring
    from mixcli.tailor.verification import VerifiedFile
    from profiles.machine import Machine

COLUMNS = ("FILE", "SIZE", "ON GPUS", "IN RAM", "PREFILL TOK/S", "DECODE TOK/S", "LOSS", "")
AUTO, NONE = "auto", "none"
MEASURED_CHUNKS = 16  # of the text on which files are compared, 512 tokens each


@click.command("tailor", cls=CheckedCommand)
@click.argument("model", type=NAME_OR_PATH, shell_complete=complete_models)
@click.option("--size", metavar="SIZE", help="Make a file of at most SIZE, such as 22GiB.")
@click.option("--target-tps", type=click.FloatRange(min=0.01), metavar="N", help="Make a file that decodes N tok/s or more, by estimate.")  # fmt: skip
@click.option(
    "--all-on-gpu",
    is_flag=True,
    help="Make a file that fits wholly on the GPUs. Default if there are GPUs.",
)
@click.option("--imatrix", default=AUTO, show_default=True, metavar="FILE|auto|none", help="Importance matrix; auto computes it now.")  # fmt: skip
@click.option("--text", "path", type=TEXT_FILE, metavar="FILE", help=f"Text for the importance matrix. {BUILT_IN_TEXT}")  # fmt: skip
@click.option("--chunks", "n_chunks", type=click.IntRange(min=1), metavar="N", help="Read only the first N chunks of the text, of 512 tokens each.")  # fmt: skip
@click.option("--reader", type=NAME_OR_PATH, metavar="MODEL", shell_complete=complete_models, help="Compute the importance matrix with a smaller file of the same model, if MODEL does not fit in memory.")  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Save the tailored file without comparing it with others.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Output GGUF. Default: MODEL-tailored.gguf in this folder.")  # fmt: skip
@click.option("--svg", "svg_path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Draw loss against size: standard and tailored files, and the limit.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Measure and show the table; write no model.")
@planning_options
@json_option
@common
@resumable()
def command(
    model: str,
    size: str | None,
    target_tps: float | None,
    all_on_gpu: bool,
    imatrix: str,
    path: Path | None,
    n_chunks: int | None,
    reader: str | None,
    no_verify: bool,
    output: Path | None,
    svg_path: Path | None,
    dry_run: bool,
    load_options: "LoadOptions",
    as_json: bool,
) -> None:
    """Quantize MODEL for this machine, or a profile, with a type chosen for each tensor.

    MODEL is a BF16 or Q8_0 file, or the folder of a checkpoint. mixcli measures what an error in each tensor costs, then chooses the types
    that lose least and still fit. On other text the file is compared with the largest standard quant that fits and with a simple fill, which
    assigns the larger types to matrices drawn at random; the best of the three is saved. Rerun the command to resume after an interruption.
    """
    from mixcli.planning.machines import machine_of
    from mixcli.tailor.subject import subject_named

    if imatrix not in (AUTO, NONE) and not Path(imatrix).is_file():
        raise UsageError(not_a_file(imatrix))
    where = (load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    machine = machine_of(*where)
    if size is None and target_tps is None and not machine.gpus:
        raise UsageError(
            "no GPU to fit the file to; pass --size SIZE or --target-tps N, or a --profile with a GPU"
        )
    goal = goal_of(size, target_tps, all_on_gpu)
    subject = subject_named(model, reader)
    target = _target(output or Path(f"{subject.name}-tailored.gguf"), subject, (imatrix, path))
    if svg_path is not None:
        svg_path = _svg_target(svg_path)
    run = TailorRun(subject, goal, machine, load_options, target, imatrix)
    run.measure(path, n_chunks)
    run.choose()
    if svg_path is not None:
        run.draw(svg_path)
    if not dry_run:
        run.write(verify=not no_verify)
    run.finish()
    run.show(as_json=as_json)


def goal_of(size: str | None, target_tps: float | None = None, all_on_gpu: bool = False) -> "TailorGoal":
    """Return what a file is fitted to, the GPUs where no limit is named; UsageError where two are."""
    from mixcli.tailor.fitting import TailorGoal

    said = [name for name, value in (("--size", size), ("--target-tps", target_tps), ("--all-on-gpu", all_on_gpu)) if value]  # fmt: skip
    if len(said) > 1:
        raise UsageError(f"{said[0]} cannot be combined with {said[1]}; remove one of them")
    if size is not None:
        return TailorGoal("size", size_in_bytes(size))
    if target_tps is not None:
        return TailorGoal("tps", target_tps)
    return TailorGoal("gpu")


def _target(path: Path, subject: "TailorSubject", given: Sequence[str | Path | None]) -> Path:
    """Return the file to write, with a recipe beside it; BadTarget for one that is read: the model, its reader, or what is `given` besides."""
    from mixcli.tailor.verification import recipe_path
    from quantize.output_target import output_target, refuse_foreign
    from quantize.tailor.recipe_file import is_recipe

    reader = subject.reader.parts if subject.reader else ()
    target = output_target(path, [*subject.model.files, *reader, *(Path(one) for one in given if one)])
    refuse_foreign(target)
    refuse_foreign(output_target(recipe_path(target)), is_recipe, "is not a recipe of mixcli tailor")
    return target


def _svg_target(path: Path) -> Path:
    from mixcli.insight.svg import svg_target

    return svg_target(path, lambda beginning: beginning.startswith(b"<svg"))


class TailorRun:
    """The steps of one call, with what each of them found."""

    def __init__(
        self,
        subject: "TailorSubject",
        goal: "TailorGoal",
        machine: "Machine",
        load_options: "LoadOptions",
        target: Path,
        imatrix: str,
    ) -> None:
        from mixcli.tailor.reader import TextReader

        self._subject, self._goal, self._machine = subject, goal, machine
        self._load_options, self._target, self._imatrix = load_options, target, imatrix
        self._reader = TextReader(subject, target)
        self._is_done = False
        self._found: PassResult | None = None
        self._tailoring: Tailoring | None = None
        self._tables: list[ContextTable] = []
        self._verified: list[VerifiedFile] = []

    @property
    def _reading(self) -> "LoadOptions":
        """Return the load of the model that reads: on this machine, whatever the file is made for."""
        from mixcli.planning.load_options import LoadOptions
        from profiles.request import PlanRequest

        return LoadOptions(PlanRequest())

    def measure(self, path: Path | None, n_chunks: int | None) -> None:
        """Read the text, and measure what each type costs each tensor."""
        from mixcli.commands.imatrix import read_pieces
        from mixcli.insight.pieces import CALIBRATION, shipped
        from mixcli.tailor.fitting import candidates_for
        from mixcli.tailor.measuring import ReadTexts, measured_problem, read_texts
        from mixcli.tailor.tailoring import Tailoring, problem_by_rules, unmeasured

        request = self._load_options.request
        # before a pass over a text, which takes long
        unmeasured(self._subject, self._goal, self._machine, request).check()
        candidates = candidates_for(self._subject, self._goal, self._machine)
        if self._imatrix == NONE:
            console.warn(
                "no importance matrix: types are chosen by size alone, with up to three times the loss; "
                "use --imatrix auto, with a smaller file of the model (--reader) if it does not fit in memory"
            )
            problem = problem_by_rules(self._subject, candidates)
        else:
            pieces = tuple(read_pieces([path])) if path else tuple(shipped(CALIBRATION))
            asked_by = "--text" if path else "--chunks" if n_chunks else None
            texts = ReadTexts(pieces, path.name if path else f"mixcli-{CALIBRATION}", n_chunks, asked_by)
            given = None if self._imatrix == AUTO else Path(self._imatrix).absolute()
            self._found = read_texts(self._subject, self._reader, texts, given, self._reading)
            with console.progress(f"measuring {counted(len(candidates), 'type')}") as bar:
                problem = measured_problem(self._subject, self._found, candidates, bar)
        self._tailoring = Tailoring(self._subject, problem, self._goal, self._machine, request)

    def choose(self) -> None:
        """Choose the types for every context that is compared."""
        assert self._tailoring
        with console.progress("planning") as bar:
            contexts = self._tailoring.contexts
            for done, n_ctx in enumerate(contexts):
                bar.update(done, len(contexts), f"context {n_ctx:,}")
                try:
                    self._tables.append(self._tailoring.table(n_ctx))
                except DoesNotFit:
                    if n_ctx == self._tailoring.n_ctx:
                        raise
                    console.note(f"at a context of {n_ctx:,} tokens no file {self._goal.verb}")

    @property
    def _table(self) -> "ContextTable":
        """Return the files at the context that the file is made for."""
        assert self._tailoring
        return next(one for one in self._tables if one.n_ctx == self._tailoring.n_ctx)

    def write(self, *, verify: bool) -> None:
        """Write the file; with `verify` also those that it is measured against, of which the best is kept."""
        from mixcli.insight.orders import N_CTX
        from mixcli.insight.perplexity import PerplexityRequest
        from mixcli.insight.pieces import HELD_OUT, shipped
        from mixcli.tailor import verification
        from mixcli.tailor.tailoring import nearest_standard

        assert self._tailoring
        table = self._table
        maker = verification.RecipeMaker(
            self._found.imatrix if self._found else None,
            self._found.imatrix_path if self._found else None,
            f"{self._goal.words}, context {table.n_ctx}",
        )
        near = nearest_standard(table)
        file = table.tailored
        if self._goal.kind == "size":
            file = verification.within_size(self._tailoring, file, maker, near, int(self._goal.value), self._target)  # fmt: skip
        candidates = [(file, maker.recipe(file, near))]
        if self._found is None or not verify:
            with console.progress(f"writing {self._target.name}", unit="bytes") as bar:
                verification.write(self._subject, candidates[0][1], maker, self._target, bar)
        else:
            filled = self._tailoring.fitting(table.n_ctx).simply_filled(file.n_bytes)
            others = [(filled, near)] if filled else []
            if (standard := table.largest_standard) is not None:
                others.append((standard, standard.name))
            candidates += [(one, maker.recipe(one, name)) for one, name in others]
            request, reader = (
                PerplexityRequest(tuple(shipped(HELD_OUT)), N_CTX, MEASURED_CHUNKS),
                self._reader.model(),
            )
            with console.progress("writing and measuring") as bar:
                self._verified = verification.keep_best(self._subject, candidates, maker, reader, request, self._reading, self._target, bar)  # fmt: skip
        verification.keep_imatrix(maker, self._target)
        self._is_done = True

    def finish(self) -> None:
        """Remove what was only made to read the texts; an interrupted run leaves it to the next one."""
        self._reader.remove()

    def draw(self, path: Path) -> None:
        """Write the picture as SVG."""
        from mixcli.system.json_cache import replace_text
        from mixcli.tailor.picture import svg
        from mixcli.tailor.tailoring import picture_of

        assert self._tailoring
        if picture := picture_of(self._tailoring, self._table):
            title = f"{self._subject.name}: predicted loss, {self._goal.words}, context {self._table.n_ctx:,}"
            replace_text(path, svg(picture, title), 0o644)
            console.note(f"drew {path}")

    def show(self, *, as_json: bool) -> None:
        """Print the tables, and what was measured and kept."""
        console.page(self._data(), self._print, as_json=as_json)
        if self._is_done:
            console.note(f"try it: mixcli chat -m {as_argument(self._target)}")

    def _print(self) -> None:
        for table in self._tables:
            console.line(f"{self._subject.name}, {self._goal.words}, context {table.n_ctx}")
            console.table(COLUMNS, (_cells(one, table) for one in table.files))
            console.line()
        gap = self._table.tailored.gap
        console.prose(
            f"LOSS is predicted, as a multiple of the tailored file's, which is at most {100 * gap:.1f} % above the least possible"
        )
        if console.is_terminal(sys.stdout):
            from mixcli.tailor.picture import drawn
            from mixcli.tailor.tailoring import picture_of

            assert self._tailoring
            if picture := picture_of(self._tailoring, self._table):
                console.line()
                for line in drawn(picture):
                    console.line(line)
        if self._verified:
            console.line()
            console.table(("MEASURED", "SIZE", "KL MEAN", "SAME TOKEN", ""), map(self._measured_cells, self._verified))  # fmt: skip
        if self._is_done:
            console.path(self._target)

    def _measured_cells(self, one: "VerifiedFile") -> tuple[str, ...]:
        kl, share = one.divergence, one.agreement
        return (
            one.file.name,
            format_bytes(one.file.n_bytes),
            estimate_cell(kl, significant(kl.value)),
            f"{100 * share.value:.1f} %",
            "kept" if one is self._verified[0] else "",
        )

    def _data(self) -> dict[str, object]:
        return {
            "model": self._subject.name,
            "goal": self._goal.words,
            "file": str(self._target) if self._is_done else None,
            "gap": self._table.tailored.gap,
            "contexts": [
                {"context": table.n_ctx, "files": [_row_data(one) for one in table.files]}
                for table in self._tables
            ],
            "measured": [
                {
                    "file": one.file.name,
                    "bytes": one.file.n_bytes,
                    "kl_mean": one.divergence.value,
                    "agreement": one.agreement.value,
                    "kept": one is self._verified[0],
                }
                for one in self._verified
            ],
        }


def _row_data(one: "FittedFile") -> dict[str, object]:
    plan = one.row.plan
    return {
        "file": one.name,
        "bytes": one.n_bytes,
        "fits": plan is not None,
        "all_on_gpu": one.row.is_on_gpus,
        "bytes_on": {account.device: account.weights for account in plan.ledger} if plan else {},
        "prefill": plan.estimate.ends(plan.estimate.prefill) if plan else None,
        "decode": plan.estimate.ends(plan.estimate.decode) if plan else None,
        "loss": one.loss,
    }


def _cells(one: "FittedFile", table: "ContextTable") -> tuple[str, ...]:
    best = table.tailored.loss
    loss = f"{one.loss / best:.2f}" if one.loss is not None and best else ""
    plan = one.row.plan
    if plan is None:
        return one.name, format_bytes(one.n_bytes), "", "", "", "does not fit", loss, ""
    return (
        one.name,
        format_bytes(one.n_bytes),
        format_bytes(one.row.bytes_on_gpus),
        format_bytes(plan.ledger[-1].weights),
        as_range(plan.estimate.ends(plan.estimate.prefill)),
        as_range(plan.estimate.ends(plan.estimate.decode)),
        loss,
        "all on GPUs" if one.row.is_on_gpus and len(plan.ledger) > 1 else "",
    )
