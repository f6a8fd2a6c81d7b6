"""Options of commands that send prompts: output format, endpoint, template variables."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from mixcli.commands.options import NAME_OR_PATH, with_options
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.offline import offline_variable
from mixcli.system.text import first_repeated

if TYPE_CHECKING:
    from mixcli.batch.batch import Backend
    from mixcli.client.endpoint import Endpoint
    from mixcli.planning.load_options import LoadOptions
    from mixcli.run.modes import LoadedModel

F = TypeVar("F", bound=Callable[..., Any])


def form_options(command: F) -> F:
    """Add what the answer must look like; the command gets one `form`."""
    abstain = click.option(
        "--abstain",
        type=click.FloatRange(0, 1),
        metavar="P",
        help="With --choice: answer `abstain` if no label reaches this probability.",
    )
    return _forms(command, (abstain,))


def many_forms_options(command: F) -> F:
    """Add what the answers to many records must look like, with probabilities and thresholds of fields; the command gets one `form`."""

    def read(_ctx: click.Context, _param: click.Parameter, said: tuple[str, ...]) -> dict[str, float]:
        found = dict(map(_threshold, said))
        if len(found) < len(said):
            raise UsageError("--abstain has two probabilities for the same answers; pass one")
        return found

    options = (
        click.option(
            "--confidence",
            is_flag=True,
            help="With --schema: return the probability of each field, exact where its values can be listed.",
        ),
        click.option(
            "--abstain",
            multiple=True,
            metavar="P|NAME=P",
            callback=read,
            help="Answer null if no label reaches this probability; with --confidence, also set a field that has a list of values to null if none does. NAME=P sets the threshold of one question or one field; may be repeated.",
        ),
    )
    return _forms(command, options)


def check_prompt(text: str | None) -> None:
    """Refuse a prompt of one dash: it is what other programs take for stdin, which is read without it."""
    if text == "-":
        raise UsageError("- is not a prompt; remove it: piped text is read without it")


def note_model_name(text: str | None, model: str | None) -> None:
    """Print how to chat with a model where its name is all that a person typed, as for Ollama; the name is sent as the text it is."""
    if model or not text or not console.is_terminal(sys.stdin):
        return
    from mixcli.store.store import names

    if (name := text.strip()) in names():
        console.note(f"{name!r} is sent as the prompt; to chat with that model: mixcli chat -m {name}")


def _threshold(said: str) -> tuple[str, float]:
    """Return the name of a field, or nothing, and its least probability."""
    name, _, number = said.rpartition("=")
    try:
        least = float(number)
    except ValueError:
        least = -1.0
    if not 0 <= least <= 1:
        raise UsageError(f"--abstain {said[:60]!r}: expected a probability from 0 to 1, or NAME=P")
    return name.strip(), least


def _forms(command: F, more: tuple[Callable[[F], F], ...]) -> F:
    options: tuple[Callable[[F], F], ...] = (
        click.option(
            "--choice", metavar="A,B,C", help="Answer with one of these labels, chosen by probability."
        ),
        *more,
        click.option(
            "--schema",
            type=NAME_OR_PATH,
            metavar="FILE|FIELDS",
            help="Answer in JSON that matches a schema: a file, or fields such as 'name, age int, tags [string]'.",
        ),
        click.option(
            "--regex", metavar="REGEX", help="Answer with text that matches this regular expression."
        ),
        click.option(
            "--grammar",
            type=NAME_OR_PATH,
            metavar="FILE|TEXT",
            help="Answer with text that matches a GBNF or Lark grammar.",
        ),
    )

    @wraps(command)
    def collect(
        choice: str | None,
        abstain: float | dict[str, float] | None,
        schema: str | None,
        regex: str | None,
        grammar: str | None,
        confidence: bool = False,
        **others: Any,
    ) -> Any:
        from mixcli.request.output_format import form_of

        least, named = (abstain.get(""), abstain) if isinstance(abstain, dict) else (abstain, {})
        form = form_of(choice, schema, regex, grammar, least)
        by_field = {name: p for name, p in named.items() if name}
        return command(
            form=form._replace(abstain=least or 0.0, abstain_from=by_field, confidence=confidence), **others
        )

    return with_options(cast(F, collect), options)


def endpoint_options(command: F) -> F:
    """Add --endpoint, --api-key-env and --offline; the command gets `endpoint`, a ServerOption or None."""
    options = (
        click.option(
            "--endpoint",
            "url",
            metavar="URL",
            help="Use this OpenAI-compatible server instead of a local model; your text leaves this machine.",
        ),
        click.option(
            "--api-key-env",
            "key_variable",
            metavar="NAME",
            help="Environment variable that holds the API key for --endpoint.",
        ),
        click.option(
            "--offline",
            is_flag=True,
            envvar="MIXCLI_OFFLINE",
            help="Never contact another machine.",
        ),
    )

    @wraps(command)
    def collect(url: str | None, key_variable: str | None, offline: bool, **others: Any) -> Any:
        if url is not None and offline:  # by the variable: the option is in the table of conflicts
            raise UsageError(f"--endpoint {url} needs the network, but MIXCLI_OFFLINE is set; unset it")
        endpoint = None if url is None else ServerOption(url, key_variable)
        return command(endpoint=endpoint, **others)

    return with_options(cast(F, collect), options)


class ServerOption(NamedTuple):
    """The server of --endpoint, which is asked nothing before it is called with the name of a model."""

    url: str
    key_variable: str | None

    def __call__(self, model: str | None) -> "Endpoint":
        """Print where the text goes, and return the model of that name."""
        self.announce()
        return self.connect(model)

    def announce(self) -> None:
        """Print where the text goes. Raises UsageError for an address that is not valid, or not to be used offline."""
        from mixcli.client.endpoint import EndpointClient

        is_here = EndpointClient(self.url, None).is_here
        if not is_here and (variable := offline_variable()):
            raise UsageError(f"--endpoint {self.url} needs the network, but {variable} is set; unset it")
        if is_here:
            console.note(f"the text is sent to {self.url}")
        else:
            console.note(f"your text leaves this machine: it is sent to {self.url}")

    def connect(self, model: str | None) -> "Endpoint":
        """Return the model of that name, or the server's only one."""
        from mixcli.client.endpoint import endpoint

        return endpoint(self.url, self.key_variable, model)


def variables_option(command: F) -> F:
    """Add -v/--var NAME=VALUE; the command gets a dictionary `variables`."""

    def read(_ctx: click.Context, _param: click.Parameter, said: tuple[str, ...]) -> dict[str, str]:
        pairs = [text.partition("=") for text in said]
        if bad := next((name for name, sign, _ in pairs if not sign or not name.strip()), None):
            raise UsageError(f"-v {bad!r} has no value; write -v NAME=VALUE")
        names = [name.strip() for name, _, _ in pairs]
        if (twice := first_repeated(names)) is not None:
            raise UsageError(f"-v {twice} is given twice; pass it once")
        return {name.strip(): value for name, _, value in pairs}

    return click.option(
        "-v",
        "--var",
        "variables",
        multiple=True,
        metavar="NAME=VALUE",
        callback=read,
        help="Set {{ NAME }} in the template; may be repeated.",
    )(command)


AtEndpoint = Callable[[str | None], "Endpoint"]


def one_asker(
    endpoint: AtEndpoint | None,
    model: str | None,
    load_options: "LoadOptions",
    keep_alive: float,
    *,
    speculate: bool = False,
) -> "LoadedModel":
    """Return the backend for one request: the server of --endpoint, or a local model."""
    if endpoint is not None:
        return endpoint(model)
    from mixcli.planning.launch import load

    return load(model, load_options, keep_alive, speculate=speculate)


def many_asker(
    endpoint: AtEndpoint | None,
    model: str | None,
    load_options: "LoadOptions",
    keep_alive: float,
    *,
    speculate: bool = False,
) -> "Backend":
    """Return the backend for many concurrent requests; a local model is planned for them."""
    if endpoint is not None:
        from mixcli.batch.backends import EndpointBackend

        return EndpointBackend(endpoint(model))
    return local_backend(model, load_options, keep_alive, speculate=speculate)


def local_backend(
    model: str | None,
    load_options: "LoadOptions",
    keep_alive: float,
    isolation_key: str = "",
    *,
    speculate: bool = False,
) -> "Backend":
    """Load a model of this machine's store, planned for many concurrent requests."""
    from mixcli.batch.backends import HostBackend
    from mixcli.planning.launch import identity, load

    many = replace(load_options, request=replace(load_options.request, purpose="batch"))
    return HostBackend(
        lambda: load(model, many, keep_alive, isolation_key, speculate=speculate),
        identity(model, load_options),
    )
