"""The process that holds the functions of a user's file: `python -P -m mixcli.tools.python_worker FILE`.

The first line that it writes has the tools, or why there are none. Each further line that it reads is the call of a function, and it writes a line with the result. What the
functions print goes to stderr. They cannot read stdin.
"""

import asyncio
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pydantic
import pydantic.json_schema
import pydantic_core

from mixcli.system.python_words import validation_text
from mixcli.tools.docstring import parse

MODULE = "mixcli_tools_file"  # not the file's own name, which may be that of a library


class _Untitled(pydantic.json_schema.GenerateJsonSchema):
    """Schemas without a title for each field: it repeats the name, and costs tokens."""

    def field_title_should_be_set(self, _schema: object) -> bool:
        return False


def load(path: Path) -> ModuleType:
    """Import the file. Modules beside it can be imported too, unless a library has their name."""
    sys.path.append(str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
    return module


def functions_of(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the public functions that the file itself defines, by name."""
    named = getattr(module, "__all__", None)
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == MODULE
        if (name in named if named is not None else not name.startswith("_"))
    }


def fault_of(function: Callable[..., Any]) -> str:
    """Return why a function cannot be a tool; empty where it can."""
    if not inspect.getdoc(function):
        return "has no docstring"
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            return f"has the parameter {parameter}, which cannot be passed by name"
        if parameter.annotation is parameter.empty:
            return f"has no type hint for {name}"
    return ""


def definition_of(name: str, function: Callable[..., Any]) -> dict[str, object]:
    """Return a function as a tool: its description and the schema of its parameters."""
    description, meanings = parse(inspect.getdoc(function) or "")
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(cast(Any, function))
    schema = adapter.json_schema(schema_generator=_Untitled)
    for parameter, meaning in meanings.items():
        if field := schema.get("properties", {}).get(parameter):
            field.setdefault("description", meaning)
    return {"name": name, "description": description, "parameters": schema}


def _has_no_number(value: object) -> bool:
    """Return whether NaN or infinity stands in a definition."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return True
    return False


def tools_of(module: ModuleType) -> dict[str, object]:
    """Return the definitions of all tools, and why other functions are left out."""
    tools, skipped = [], []
    for name, function in functions_of(module).items():
        fault = fault_of(function)
        if not fault:
            try:
                made = definition_of(name, function)
                if _has_no_number(made):
                    fault = "has a default that is not JSON: NaN or infinity"
                else:
                    tools.append(made)
            except (pydantic.errors.PydanticUserError, NameError) as error:
                fault = f"has a type hint without a JSON schema: {str(error).splitlines()[0]}"
        if fault:
            skipped.append(f"{name} {fault}")
    return {"tools": tools, "skipped": skipped}


def called(function: Callable[..., Any], arguments: Mapping[str, object]) -> dict[str, object]:
    """Return the result of a call, or how it failed."""
    try:
        value = pydantic.validate_call(function)(**arguments)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        text = value if isinstance(value, str) else pydantic_core.to_json(value, fallback=str).decode()
    except pydantic.ValidationError as error:
        faults = (f"{'.'.join(map(str, one['loc']))}: {validation_text(one)}" for one in error.errors())
        return {"error": "; ".join(faults)}
    except BaseException as error:
        return {"error": _told(error)}
    return {"result": text}


def _told(error: BaseException) -> str:
    """Return an exception as its last line has it, and the line of the user's file where it came from."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and sys.modules.get(MODULE)
        if frame.filename == sys.modules[MODULE].__file__
    ]
    what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return f"{what} (line {lines[-1]})" if lines else what


def main() -> None:
    """Run calls until stdin ends."""
    requests, responses = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)

    def respond(value: Mapping[str, object]) -> None:
        responses.write(json.dumps(value).encode() + b"\n")
        responses.flush()

    try:
        module = load(Path(sys.argv[1]))
        respond(tools_of(module))
    except BaseException as error:
        respond({"error": _told(error)})
        return
    functions = functions_of(module)
    for line in requests:
        request = json.loads(line)
        function = functions.get(request["name"])  # the file may have changed since it was offered
        gone = {"error": f"{request['name']} is no longer in {Path(sys.argv[1]).name}"}
        respond(gone if function is None else called(function, request["arguments"]))


if __name__ == "__main__":
    main()
