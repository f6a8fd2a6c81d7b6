"""Refuse a model whose chat template the host could not render, before anything is loaded."""

import json
from hashlib import sha256

from mixcli.errors import IntegrityError
from mixcli.system import json_cache, python_child
from quantize.sources.gguf_header import GgufHeader

SECONDS = 60.0
CACHE = "templates"  # the hashes of templates that were tried and are sound


def check_template(header: GgufHeader) -> None:
    """Try a model's chat template once; raise IntegrityError with what `run` would say of it.

    What passes may still refuse a conversation. Where the trial itself fails, nothing is said.
    """
    template = header.get("tokenizer.chat_template")
    if not isinstance(template, str) or not template:
        return
    name = sha256(template.encode("utf-8", "surrogatepass")).hexdigest()
    if json_cache.load(CACHE).get(name) is True:
        return
    done = python_child.run(
        "-m",
        "mixcli.prompts.template_trial",
        seconds=SECONDS,
        stdin=template.encode("utf-8", "replace").decode(),
    )
    if not done.succeeded:
        return
    if fault := json.loads(done.out):
        raise IntegrityError(str(fault))
    json_cache.update(CACHE, lambda found: found.update({name: True}))
