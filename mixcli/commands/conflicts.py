"""The table of options that cannot be combined, checked for every command before anything is loaded.

A command is an instance of `CheckedCommand`. Only what stands on the command line counts, not defaults or environment variables. An option that
takes one value is refused when it is given twice. What depends on a file or a model (a variable that a template does not have) is checked
where that is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import click
from click.core import ParameterSource, augment_usage_errors

from mixcli.errors import UsageError

SAMPLING = (
    "--max-tokens",
    "--temperature",
    "--top-k",
    "--top-p",
    "--min-p",
    "--repeat-penalty",
    "--seed",
    "--stop",
    "--speculate",
)
PLACEMENT = ("--keep-alive", "--ctx", "--profile", "--vram", "--ram", "--kv", "--worker", "--from-disk")
FORMS = ("--choice", "--schema", "--regex", "--grammar")
OF_RECORDS = ("--prompt", "--template", "--var", "--system", "--column", "--format", "--tolerance", "--deterministic")  # fmt: skip
PLANNED = (
    "run",
    "batch",
    "chat",
    "serve",
    "plan",
    "tune",
    "pull",
    "search",
    "tailor",
    "imatrix",
    "perplexity",
    "compare",
    "experts",
    "bench",
)  # commands that plan a model

IGNORED, CLASH, NEEDED = "has no effect with", "cannot be combined with", "has no effect without"


class Rule(NamedTuple):
    """Options and arguments of some commands that do not go with, or not without, others; an option may be followed by a value.

    `unless` names options with which the rule does not hold.
    """

    commands: tuple[str, ...]
    options: tuple[str, ...]
    kind: str
    others: tuple[str, ...]
    unless: tuple[str, ...] = ()

    def faults(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield each option with those that it is held against: one at a time, or all of which one is needed."""
        for option in self.options:
            for others in (self.others,) if self.kind == NEEDED else ((one,) for one in self.others):
                yield option, others


ASKING = ("run", "batch")
ANYWHERE = (*ASKING, "chat")  # commands that have --endpoint
ANSWERING = (*ASKING, "compare")
RULES = (
    Rule(("run",), ("--stream",), IGNORED, ("--json", "--abstain")),
    # labels are chosen by their probabilities; another server may sample them
    Rule(ASKING, SAMPLING, IGNORED, ("--choice",), unless=("--endpoint",)),
    Rule(("run", "compare"), ("--abstain",), NEEDED, ("--choice",)),
    Rule(("batch",), ("--abstain",), NEEDED, ("--choice", "--confidence", "--ask")),
    Rule(("batch",), ("--confidence",), NEEDED, ("--schema", "--ask")),
    Rule(("batch",), ("--ask",), CLASH, FORMS),  # each question has a form of its own
    Rule(("batch",), ("--review",), NEEDED, ("--abstain",)),
    Rule(("batch",), ("--calibration",), NEEDED, ("--choice", "--confidence", "--ask")),
    *(Rule(ANSWERING, (form,), CLASH, FORMS[number:]) for number, form in enumerate(FORMS[:-1], 1)),
    # without a temperature the most likely token is taken
    Rule(("run",), ("--top-k", "--top-p", "--min-p"), NEEDED, ("--temperature", "--persona")),
    Rule(("batch",), ("--top-k", "--top-p", "--min-p"), NEEDED, ("--temperature",)),
    # a server elsewhere loads its model as it likes
    Rule(ANYWHERE, PLACEMENT, IGNORED, ("--endpoint",)),
    Rule(ANYWHERE, ("--api-key-env",), NEEDED, ("--endpoint",)),
    Rule(ANYWHERE, ("--offline",), CLASH, ("--endpoint",)),
    Rule(("chat",), ("--draft",), IGNORED, ("--endpoint",)),
    Rule(ASKING, ("--deterministic",), CLASH, ("--endpoint", "--speculate")),
    Rule(("run",), ("--deterministic",), CLASH, ("--draft",)),
    # labels and many texts are computed together, a server elsewhere drafts as it likes
    Rule(("run",), ("--draft",), IGNORED, ("--choice", "--each-line", "--endpoint")),
    Rule(("batch",), ("--deterministic",), CLASH, ("--ray", "--unordered")),
    Rule(("batch",), ("--ray",), CLASH, ("--endpoint",)),
    Rule(("batch", "serve"), ("--worker",), CLASH, ("--ray",)),  # a worker belongs to one model
    Rule(("batch", "compare"), ("--prompt",), CLASH, ("--template",)),
    Rule(("batch",), ("--json",), NEEDED, ("--eval",)),
    Rule(("compare",), ("--eval",), NEEDED, ("--choice", "--regex", "--grammar")),
    Rule(("batch",), ("--eval",), NEEDED, (*FORMS, "--ask")),
    # answers to records are compared instead of distributions on texts
    Rule(("compare",), (*FORMS, *OF_RECORDS), NEEDED, ("--records",)),
    Rule(("compare",), ("--text", "--ctx", "--chunks", "--svg"), IGNORED, ("--records",)),
    Rule(("run", "chat"), ("--persona",), CLASH, ("--system",)),
    Rule(("run",), ("--var",), NEEDED, ("--template",)),
    Rule(("run",), ("--on-overflow", "--stats", "--stream"), IGNORED, ("--each-line",)),
    Rule(("run",), ("--stats",), IGNORED, ("--quiet",)),
    Rule(("chat",), ("--yes",), NEEDED, ("--tools",)),
    Rule(("run",), ("--tools",), CLASH, (*FORMS, "--each-line", "--on-overflow map-reduce")),
    Rule(("run",), ("--tool-choice",), NEEDED, ("--tools",)),
    Rule(("run",), ("--stream",), IGNORED, ("--tools",)),
    Rule(("chat",), ("--ephemeral",), CLASH, ("--continue", "--resume")),
    Rule(("chat",), ("--continue",), CLASH, ("--resume",)),
    Rule(PLANNED, ("--worker",), IGNORED, ("--profile",)),
    Rule(("plan",), ("--verify",), CLASH, ("--json",)),
    Rule(
        ("pull", "plan"), ("--prefer", "--min-tps"), IGNORED, ("--quant",)
    ),  # a type that is named is not chosen
    Rule(("pull",), ("--imatrix",), NEEDED, ("--quant", "--fit")),
    Rule(("pull",), ("--size",), NEEDED, ("--fit",)),
    # without an importance matrix nothing is read, and nothing measured afterwards
    Rule(("tailor",), ("--text", "--chunks", "--reader", "--no-verify"), IGNORED, ("--imatrix none",)),
    Rule(("tailor",), ("--no-verify",), IGNORED, ("--dry-run",)),
    Rule(("tune",), ("--seconds", "--target-tps"), IGNORED, ("--show",)),
    Rule(("experts",), ("--layer", "--svg"), IGNORED, ("--dry-run",)),
    Rule(("bench",), ("--csv",), CLASH, ("--json", "--against")),
    Rule(("bench",), ("--csv", "--against"), IGNORED, ("--dry-run",)),
    Rule(("experts",), ("--layer",), IGNORED, ("--json",)),
    Rule(("convert",), ("--seed",), NEEDED, ("--upcycle-experts",)),
    Rule(("default",), ("MODEL",), CLASH, ("--clear",)),
    Rule(("default",), ("--json",), IGNORED, ("MODEL", "--clear")),
    Rule(("tune",), ("MODEL",), CLASH, ("--model",)),
    Rule(("top",), ("--interval",), IGNORED, ("--json",)),
    Rule(("stop",), ("MODEL",), CLASH, ("--all",)),
    Rule(("serve",), ("MODEL",), CLASH, ("--model",)),
    Rule(("serve",), ("--all",), CLASH, ("MODEL", "--model", "--ray")),
    Rule(("serve",), ("--replicas",), NEEDED, ("--ray",)),
)
NEUTRAL = {"--profile auto", "--on-overflow error", "--upcycle-experts 0"}  # values that say nothing


class CheckedCommand(click.Command):
    """A command that refuses options which have no effect, and values of which only the last would count."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        with augment_usage_errors(ctx):
            values, _, order = self.make_parser(ctx).parse_args(list(args))
        check_filled(ctx, values, order)
        ctx.allow_extra_args = True  # to be refused in our words
        if rest := super().parse_args(ctx, args):
            from mixcli.system.usage_hints import unexpected

            raise click.UsageError(unexpected(self.name or "", rest), ctx)
        check_once(order)
        group = ctx.parent if ctx.parent is not None and ctx.parent.parent is not None else None
        check(f"{group.info_name} {self.name}" if group else self.name or "", self.given(ctx))
        return rest

    def given(self, ctx: click.Context) -> set[str]:
        """Return what the command line sets, as the table has it."""
        return given(ctx)


class Group(click.Group):
    """A group whose commands are `CheckedCommand`s."""

    command_class = CheckedCommand

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            from mixcli.system.usage_hints import no_such_command

            raise UsageError(no_such_command(args[0], self.commands, ctx.command_path))
        return super().resolve_command(ctx, args)


def given(ctx: click.Context) -> set[str]:
    """Return what the command line sets: options as --name and as "--name value", arguments by their names in capitals."""
    found = set()
    for parameter in ctx.command.get_params(ctx):
        name = parameter.name or ""
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params.get(name)
        if isinstance(parameter, click.Option):
            spelled = _long(
                parameter.secondary_opts if value is False and parameter.secondary_opts else parameter.opts
            )
            if f"{spelled} {value}" not in NEUTRAL:
                found |= {spelled, f"{spelled} {value}"}
        else:
            found.add((parameter.metavar or name).strip("[].").upper())
    return found


def check(command: str, said: set[str]) -> None:
    """Raise UsageError for the first rule that the command line breaks."""
    for rule in RULES:
        if command not in rule.commands or said.intersection(rule.unless):
            continue
        for option, others in rule.faults():
            if option in said and said.isdisjoint(others) == (rule.kind == NEEDED):
                raise UsageError(sentence(option, rule.kind, others))


def sentence(option: str, kind: str, others: tuple[str, ...]) -> str:
    """Return the message: the conflict and the next step."""
    listed = " or ".join((", ".join(others[:-1]), others[-1]) if len(others) > 1 else others)
    missing = "it" if len(others) == 1 else "one"
    step = f"add {missing} or remove {option}" if kind == NEEDED else "remove one of them"
    return f"{option} {kind} {listed}; {step}"


def check_filled(ctx: click.Context, values: Mapping[str, object], order: Sequence[click.Parameter]) -> None:
    """Refuse an empty word where a name or a file is wanted: it is what a shell makes of an unset variable in quotes."""
    for parameter in order:
        value = values.get(parameter.name or "")
        if _names_something(parameter) and "" in (value if isinstance(value, list | tuple) else (value,)):
            called = (
                _long(parameter.opts)
                if isinstance(parameter, click.Option)
                else parameter.make_metavar(ctx).strip("[].")
            )
            raise UsageError(f"{called} is empty; check that the shell variable is set")


def check_once(order: Sequence[click.Parameter]) -> None:
    """Refuse an option of one value that is given twice."""
    seen = set()
    for parameter in order:
        if not isinstance(parameter, click.Option) or parameter.multiple or parameter.is_flag:
            continue
        if parameter in seen:
            raise UsageError(f"{_long(parameter.opts)} is given twice; pass it once")
        seen.add(parameter)


def _names_something(parameter: click.Parameter) -> bool:
    """Return whether a value is a model, a file or a name, which are never empty; text to be read or written may be."""
    named = {"NAME", "MODEL", "FILE", "TYPE", "QUANT", "ADDRESS", "URL", "PROFILE", "HOST:PORT"}
    is_file = isinstance(parameter.type, click.Path | click.types.UnprocessedParamType)
    return is_file or parameter.metavar in named or parameter.name in ("name", "names", "new_name")


def _long(names: list[str]) -> str:
    return next((name for name in names if name.startswith("--")), names[0])
