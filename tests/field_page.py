"""Write docs/api-fields.md: what becomes of every field of a chat request, from the tables that the host reads."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from mixcli.host.api.chat_fields import CHAT_RULES, MESSAGE_RULES
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.field_rules import FieldRule
from mixcli.request.sampling_table import RANGES

PAGE = Path(__file__).parents[1] / "docs" / "api-fields.md"
INTRODUCTION = """# Fields of a chat request

What `POST /v1/chat/completions` does with each field that OpenAI, llama-server, vLLM, Mistral and others have. Nothing that changes an answer is
ignored: a field is supported, or refused with 400 and its name in `param`. `null` counts as absent everywhere. An unknown field is refused.
Written by `make help`; a test keeps it true.
"""
# our own fields that are no numbers of the sampling table
OURS = {
    "messages": "the conversation: `role` is `system`, `developer` (the same), `user`, `assistant` or `tool`; `content` is a text or text parts, of an assistant also `refusal` and `thinking` parts. An assistant's message may have `tool_calls` and `reasoning_content`, a tool's has `tool_call_id`. A last message of the assistant is continued",
    "model": "any name; the loaded model answers",
    "stream": "send the answer as server-sent events",
    "stream_options": "`include_usage`: end a stream with the counts; only with `stream`",
    "n": "number of answers, 1 to 128; the prompt is processed once, and from one `seed` each answer gets its own",
    "thinking_token_budget": "maximum number of reasoning tokens; then the answer begins. -1 is no limit",
    "stop": "up to 16 strings; the answer ends before the first that occurs",
    "logit_bias": "added to the logits of tokens, by their ids: -100 to 100",
    "logprobs": "return the log-probability of each token",
    "top_logprobs": "and of the N most likely tokens at its place, 0 to 20",
    "response_format": "`json_object`, or `json_schema` with a schema, which is enforced whole; with `strict: false` a keyword that cannot be enforced is left to the model; llama-server's `schema` beside `json_object` too",
    "structured_outputs": "one of `json`, `regex`, `grammar` and `choice`, as in vLLM",
    "dry_sequence_breakers": "strings across which DRY finds no repetitions",
    "tools": "functions that the model may call: `name`, `description`, `parameters` (a JSON schema, which the arguments keep to) and `strict` (refuse a schema that cannot be enforced whole; of other functions, a keyword that cannot be enforced is left to the model, and `oneOf` is read as `anyOf`)",
    "tool_choice": "`auto`, `none`, `required` (or Mistral's `any`), or the one function that must be called. OpenAI's `allowed_tools` names some of the tools; the others stay in the prompt and are not called",
    "parallel_tool_calls": "`false`: one call at most",
    "reasoning_effort": "for models whose chat format has it: Mistral's version 15, and templates that read it",
    "enable_thinking": '`true` or `false` for models that can do both; refused for a model that always or never thinks. DeepSeek\'s `{"type": "disabled"}` too',
    "chat_template_kwargs": "`enable_thinking` or `thinking`, and `reasoning_effort`; others are refused",
    "ignore_eos": "continue until the limit: no token that ends an answer is chosen",
    "add_generation_prompt": "`false` only with a last message of the assistant, as in vLLM",
    "continue_final_message": "must be `true` for a last message of the assistant and `false` for others, as in vLLM",
    "on_overflow": "`error`, or `drop-oldest` to drop the oldest turns that do not fit",
    "return_progress": "send events with the progress of prompt processing, as in llama-server",
    "return_token_ids": "return the token ids of the answer; a message with `token_ids` is not tokenized again",
    "speculate": "draft tokens from the text so far and verify them; the answer is the same",
    "park": "keep the conversation in the KV cache for its next turn (default)",
    "persist": "keep it on disk too",
    "deterministic": "compute alone, so that the same request gives the same bytes",
    "field_probs": "return the probability of each field of an answer in JSON ([what it means](batch.md#how-sure-is-a-field)); not with `tools`",
}

# parameters of the API only, which have no help on the command line
API_ONLY = {
    "min_tokens": "minimum length of the answer, in tokens; a stop text or a constraint may end it earlier",
    "top_n_sigma": "keep tokens whose logit is at most this many standard deviations below the highest; -1 is off",
    "xtc_probability": "probability that XTC applies to a token; 0 is off",
    "xtc_threshold": "XTC drops all tokens above this probability but the least likely of them",
    "repeat_last_n": "number of tokens that the penalties look back on; 0 is off, -1 is the whole context",
    "dry_multiplier": "strength of DRY, which penalizes repeated sequences; 0 is off",
    "dry_base": "base of the penalty, which grows exponentially with the length of the repetition",
    "dry_allowed_length": "length of a repetition, in tokens, up to which DRY has no penalty",
    "dry_penalty_last_n": "number of tokens that DRY looks back on; 0 is off, -1 is the whole context",
    "dynatemp_range": "the temperature varies with the entropy by up to this much in both directions; 0 is off",
    "dynatemp_exponent": "exponent of the temperature's dependence on the entropy",
    "mirostat": "version of Mirostat sampling, 1 or 2; 0 is off",
    "mirostat_tau": "target entropy of Mirostat",
    "mirostat_eta": "learning rate of Mirostat",
}


def page() -> str:
    """Return the whole page."""
    return INTRODUCTION + "".join(
        f"\n## {title}\n\n{_table(head, rows)}" for title, head, rows in _sections()
    )


def _sections() -> Iterator[tuple[str, tuple[str, ...], Iterable[tuple[str, ...]]]]:
    names = [name for name in ChatRequest.model_fields if name not in RANGES]
    yield "Supported", ("field", "meaning"), [(f"`{name}`", OURS[name]) for name in names]
    numbers = [(f"`{name}`", row.text, row.help or API_ONLY[name]) for name, row in RANGES.items()]
    yield "Sampling", ("field", "values", "meaning"), numbers
    rules = list(CHAT_RULES.items())
    other = [(f"`{name}`", f"`{rule.becomes}`", rule.origin) for name, rule in rules if rule.becomes]
    other += [
        ("`max_tokens`: -1", "no limit", "llama-server, vLLM"),
        ("`top_k`: -1", "`top_k`: 0", "vLLM"),
        ("`seed`: -1", "a random seed", "llama-server, vLLM"),
    ]
    yield "Other names", ("field", "is", "of"), other
    yield "Without effect", ("field", "because", "of"), _rows(rules, passes_all=True)
    some = [
        (f"`{name}`", " or ".join(f"`{json.dumps(one)}`" for one in rule.passes), rule.why, rule.origin)
        for name, rule in rules
        if not rule.becomes and rule.passes
    ]
    yield "Only with these values", ("field", "values", "instead of others", "of"), some
    yield "Refused", ("field", "instead", "of"), _rows(rules, passes_all=False)
    of_messages = [
        (
            f"`{name}`",
            "no effect" if rule.passes is None else "refused, unless it is empty",
            rule.why,
            rule.origin,
        )
        for name, rule in MESSAGE_RULES.items()
    ]
    yield "In a message", ("field", "what becomes of it", "because, or instead", "of"), of_messages


def _rows(rules: Iterable[tuple[str, FieldRule]], *, passes_all: bool) -> Iterator[tuple[str, str, str]]:
    for name, rule in rules:
        if not rule.becomes and (rule.passes is None if passes_all else rule.passes == ()):
            yield f"`{name}`", rule.why, rule.origin


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
