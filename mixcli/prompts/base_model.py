"""Base models: they continue text, and have no format for conversations."""

from collections.abc import Sequence
from typing import NoReturn

from mixcli.errors import BadRequest, UsageError
from mixcli.llama.model import Model
from mixcli.prompts.answer_syntax import AnswerSyntax
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.content_tokenizer import ContentTokenizer
from mixcli.prompts.messages import NO_OPTIONS, Message, PromptOptions

NO_FORMAT = "none"


def format_of(model: Model) -> ChatFormat:
    """Return a model's chat format; that of a base model refuses every conversation and encodes text."""
    try:
        return ChatFormat.of(model)
    except UsageError as error:
        reason = str(error)

    def refuse(
        messages: Sequence[Message],  # noqa: ARG001  # the names of a Layout
        options: PromptOptions = NO_OPTIONS,  # noqa: ARG001
    ) -> NoReturn:
        raise BadRequest(f"{reason}, or continue text with /v1/completions", param="messages")

    return ChatFormat(NO_FORMAT, refuse, ContentTokenizer(model.vocab), AnswerSyntax())
