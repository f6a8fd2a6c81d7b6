"""Sentences on an invalid command line: the cause, and the nearest name, also for those who know Ollama, llama.cpp, mlx-lm or vLLM.

Imported only when a command line is invalid.
"""

import re
from collections.abc import Collection, Mapping, Sequence

import click

from mixcli.system.text import clean, nearest

# names that other programs have for a command: what is typed after `mixcli` instead
COMMANDS_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("ls", "models", "tags"), "list"),
    **dict.fromkeys(("remove", "delete", "del", "uninstall"), "rm"),
    **dict.fromkeys(("generate", "complete", "completion", "prompt", "ask", "infer"), "run"),
    **dict.fromkeys(("cli", "talk", "repl"), "chat"),
    **dict.fromkeys(("create", "add"), "import"),
    **dict.fromkeys(("info", "inspect"), "show"),
    **dict.fromkeys(("download", "get", "fetch", "install"), "pull"),
    **dict.fromkeys(("find",), "search"),
    **dict.fromkeys(("kill", "unload"), "stop"),
    **dict.fromkeys(("status", "loaded"), "ps"),
    **dict.fromkeys(("server", "start", "api"), "serve"),
    **dict.fromkeys(("benchmark", "perf"), "bench"),
    **dict.fromkeys(("ppl", "evaluate", "eval"), "perplexity"),
    **dict.fromkeys(("history", "conversations"), "sessions"),
    **dict.fromkeys(("check", "env", "gpus", "devices"), "doctor"),
    **dict.fromkeys(("estimate", "fit", "fits"), "plan"),
    **dict.fromkeys(("rpc", "rpc-server"), "worker"),
    "version": "--version",
    "completions": "run --print-completion bash",
}

# names that other programs have for an option: those of mixcli, the first that the command has
OPTIONS_ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("--temp",), ("--temperature",)),
    **dict.fromkeys(
        ("-n", "--n-predict", "--predict", "--num-predict", "--max-new-tokens"), ("--max-tokens", "--tokens")
    ),
    **dict.fromkeys(
        (
            "-c",
            "--ctx-size",
            "--num-ctx",
            "--context",
            "--context-length",
            "--max-kv-size",
            "--max-model-len",
        ),
        ("--ctx",),
    ),
    **dict.fromkeys(("-sys", "--system-prompt"), ("--system",)),
    **dict.fromkeys(
        ("-ctk", "-ctv", "--cache-type-k", "--cache-type-v", "--kv-bits", "--kv-cache-dtype"), ("--kv",)
    ),
    **dict.fromkeys(("--verbose", "--perf", "--timings"), ("--stats",)),
    **dict.fromkeys(("--keepalive", "--ttl"), ("--keep-alive",)),
    **dict.fromkeys(("-j", "--json-schema", "--format"), ("--schema",)),
    **dict.fromkeys(("--api-key",), ("--api-key-env",)),
    **dict.fromkeys(("--rpc",), ("--worker",)),
    **dict.fromkeys(("-md", "--model-draft", "--draft-model"), ("--draft",)),
    **dict.fromkeys(("--repetition-penalty",), ("--repeat-penalty",)),
    **dict.fromkeys(("--log-disable",), ("--quiet",)),
    **dict.fromkeys(("--outtype", "--type", "--q-bits"), ("--quant", "--output-type")),
    **dict.fromkeys(("--token",), ("--api-key-env",)),
}

# options of other programs that need none here: what to do
STEPS_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(
        ("-ngl", "--n-gpu-layers", "--gpu-layers", "-ot", "--override-tensor", "--cpu-moe", "--n-cpu-moe", "-ncmoe", "-ts", "--tensor-split"),
        "mixcli places layers and experts itself: see `mixcli plan`, and limit a GPU with --vram",
    ),
    **dict.fromkeys(("-fa", "--flash-attn", "--no-mmap", "--mlock", "-b", "-ub", "--threads"), "the plan chooses it: see `mixcli plan`"),
    **dict.fromkeys(("-np", "--parallel", "-cb"), "requests are always batched, and need no option"),
    **dict.fromkeys(("-i", "-cnv", "--interactive", "--conversation"), "use `mixcli chat`"),
    **dict.fromkeys(("-hf", "-hfr", "--hf-repo"), "use `mixcli pull ORG/REPO`"),
    **dict.fromkeys(("--hf-path",), "pass the folder without an option, or use `mixcli pull ORG/REPO`"),
    **dict.fromkeys(("--lora", "--lora-scaled", "--adapter-path"), "adapters are not supported; merge them into the weights first"),
    **dict.fromkeys(("--mmproj", "--image"), "images are not supported; mixcli reads and writes text"),
    **dict.fromkeys(("--revision",), "write ORG/REPO@REVISION"),
    **dict.fromkeys(("-p", "--prompt"), 'pass the prompt without an option: mixcli run "PROMPT"'),
}  # fmt: skip

# how click's sentences begin, and ours
_BEGINS: Mapping[str, str] = {
    r"Option (\S+) requires an argument": r"\1 needs a value",
    r"Option (\S+) requires (\d+) arguments": r"\1 needs \2 values",
    r"Option (\S+) does not take a value": r"\1 takes no value",
    r"Missing parameter: ": "missing ",
    r"Missing (argument|option) '?(.*?)'?$": r"missing \1 \2",
    r"Invalid value": "invalid value",
}
LEAST_LIKE = 0.7  # of a typo and one of many commands: short words are like several
_MAX_SHOWN = 40  # characters of an unexpected argument


def sentence(error: click.UsageError, words: Sequence[str]) -> str:
    """Return what is wrong with a command line, in the style of all errors; `words` are what was typed after `mixcli`."""
    if isinstance(error, click.NoSuchOption):
        return _no_such_option(error, words)
    text = re.sub(
        r"'(--?[\w-]+|\[?[A-Z_]+\]?(\.\.\.)?)'", r"\1", error.format_message().strip()
    ).removesuffix(".")
    for begin, ours in _BEGINS.items():
        text = re.sub(f"^{begin}", ours, text)
    return text


def no_such_command(typed: str, names: Collection[str], path: str) -> str:
    """Return the sentence on a command that does not exist below `path`; only those of `mixcli` itself have other names elsewhere."""
    named = COMMANDS_ELSEWHERE.get(typed.lower()) if path == "mixcli" else None
    near = named or nearest(typed, names, cutoff=LEAST_LIKE if path == "mixcli" else 0.6)
    hint = f"did you mean `{path} {near}`?" if near else f"`{path} --help` lists the commands"
    return f"no such command {clean(typed)!r}; {hint}"


def unexpected(command: str, extra: Sequence[str]) -> str:
    """Return the sentence on arguments that a command does not take."""
    if not any(extra):
        return "unexpected empty argument; check that the shell variable is set"
    text = clean(" ".join(extra))
    shown = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
    step = "; pass the model with -m, and the prompt in quotes" if command in ("run", "chat") else ""
    return f"unexpected {'arguments' if len(extra) > 1 else 'argument'} {shown!r}{step}"


def _no_such_option(error: click.NoSuchOption, words: Sequence[str]) -> str:
    typed = error.option_name
    if not typed.startswith("--"):  # click names the first letter of -ngl
        typed = next((word.partition("=")[0] for word in words if word.startswith(typed)), typed)
    known = _options(error.ctx) if error.ctx else set()
    named = next((one for one in OPTIONS_ELSEWHERE.get(typed, ()) if one in known), None)
    if not named and (step := STEPS_ELSEWHERE.get(typed)):
        return f"no such option {clean(typed)}; {step}"
    near = named or (nearest(typed, known) if typed.startswith("--") else None)
    return f"no such option {clean(typed)}" + (f"; did you mean {near}?" if near else "")


def _options(ctx: click.Context) -> set[str]:
    """Return the long names of a command's options that its help lists."""
    return {
        name
        for one in ctx.command.get_params(ctx)
        if isinstance(one, click.Option) and not one.hidden
        for name in (*one.opts, *one.secondary_opts)
        if name.startswith("--")
    }


__all__ = ["no_such_command", "sentence", "unexpected"]
