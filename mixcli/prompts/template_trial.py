"""Try a chat template as the host would: `python -m mixcli.prompts.template_trial` reads one from stdin and prints why it is broken, as JSON.

In a process of its own, since a front end imports nothing of prompts; the template itself runs in that of jinja_worker.py.
"""

import json
import sys

from mixcli.errors import IntegrityError
from mixcli.prompts.jinja_process import BrokenTemplate, TemplateProcess
from mixcli.prompts.messages import Message
from mixcli.prompts.template_variables import TemplateVariables


def main() -> None:
    """Print null for a template that may work: other errors can depend on the conversation."""
    messages = [Message("user", "a")]
    fault = None
    try:
        TemplateProcess(sys.stdin.read(), {}).render(TemplateVariables.of(messages, ["a"], prompt=True))
    except BrokenTemplate as error:
        fault = str(error) if error.is_certain else None
    except IntegrityError as error:  # it took too much time or memory
        fault = str(error)
    print(json.dumps(fault))  # noqa: T201


if __name__ == "__main__":
    main()
