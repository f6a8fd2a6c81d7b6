"""The completion request as the host accepts it: a prompt in place of a conversation, and the options of a chat request."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from mixcli.engine.logprobs import MAX_TOP_LOGPROBS
from mixcli.errors import BadRequest
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.json_body import validated
from mixcli.host.api.wire_model import Whole, not_empty
from mixcli.host.call import ChatQuestion
from mixcli.prompts.raw_prompt import RawPrompt

MAX_PROMPTS = 1024
MAX_PROMPT_TOKENS = 1 << 20
MAX_ANSWERS = 256  # of one request: prompts times n
DEFAULT_MAX_TOKENS = 16  # OpenAI's

Tokens = Annotated[list[Whole], Field(min_length=1, max_length=MAX_PROMPT_TOKENS, fail_fast=True)]
PromptField = Annotated[
    str
    | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
    | Tokens
    | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)],
    not_empty("text or token ids"),
]
# fields of a chat that mean nothing without a conversation
CHAT_ONLY = (
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "reasoning_effort",
    "top_logprobs",
    "on_overflow",
    "return_progress",
    "max_completion_tokens",
)


class CompletionRequest(BaseModel):
    """POST /v1/completions; the other fields are those of a chat request."""

    model_config = ConfigDict(strict=True, extra="allow")

    prompt: PromptField
    suffix: str | None = None
    echo: bool = False
    logprobs: Whole | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    n: Whole = Field(1, ge=1, le=MAX_ANSWERS)
    best_of: Whole | None = None
    max_tokens: Whole | None = None
    parse_special: bool = False

    def read(self) -> "Completion":
        """Return the request as it is carried out; BadRequest names a field that is wrong."""
        options: dict[str, Any] = dict(self.model_extra or {})
        for name in CHAT_ONLY:
            if name in options:
                raise BadRequest(f"{name} is a field of /v1/chat/completions; remove it", param=name)
        if self.best_of not in (None, self.n):
            raise BadRequest("best_of other than n is not supported; remove it", param="best_of")
        if self.max_tokens is not None or options.get("n_predict") is None:
            options["max_tokens"] = self.max_tokens or DEFAULT_MAX_TOKENS
        options["messages"] = [{"role": "user", "content": ""}]
        chat = validated(ChatRequest, options)
        prompts = tuple(self._prompts())
        if len(prompts) * self.n > MAX_ANSWERS:
            raise BadRequest(
                f"{len(prompts)} prompts with n {self.n} are more than {MAX_ANSWERS} answers", param="n"
            )
        question = replace(chat.question(), messages=(), top_logprobs=self.logprobs)
        return Completion(self, chat, prompts, question)

    def _prompts(self) -> list[RawPrompt]:
        given = self.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            given = [given]  # type: ignore[assignment]
        return [self._raw(one) for one in given]  # type: ignore[arg-type]

    def _raw(self, prompt: str | list[int]) -> RawPrompt:
        if isinstance(prompt, str):
            return RawPrompt(prompt, suffix=self.suffix, parse_special=self.parse_special)
        return RawPrompt(tokens=tuple(prompt), suffix=self.suffix)


@dataclass(frozen=True)
class Completion:
    """A completion request that was checked: its prompts, and the options of every answer."""

    request: CompletionRequest
    chat: ChatRequest
    prompts: tuple[RawPrompt, ...]
    question: ChatQuestion

    def questions(self, prompt: RawPrompt) -> list[ChatQuestion]:
        """Return a question for each answer to a prompt; a seed gives each another one."""
        sampling = self.question.sampling
        return [
            replace(self.question, raw=prompt, sampling=sampling.varied(i)) for i in range(self.request.n)
        ]
