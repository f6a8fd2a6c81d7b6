"""Fields of OpenAI, llama-server, vLLM, Mistral and others that a chat request may have beside our own, and what becomes of each.

Nothing that changes an answer is ignored: a field is another name for one of ours, has no effect on an answer, is allowed only with values
that ask for nothing, or is refused. docs/api-fields.md is made from these tables.
"""

from collections.abc import Mapping

from mixcli.host.api.field_rules import FieldRule, alias, harmless, only

# llama-server's default, which the engine has too
SAMPLERS = ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]

OPENAI: Mapping[str, FieldRule] = {
    "max_completion_tokens": alias("OpenAI", "max_tokens"),
    "user": harmless("OpenAI", "identifies a user to OpenAI"),
    "safety_identifier": harmless("OpenAI", "identifies a user to OpenAI"),
    "metadata": harmless("OpenAI", "labels a stored response"),
    "store": harmless("OpenAI", "nothing is stored"),
    "prompt_cache_key": harmless("OpenAI", "prompts are always cached"),
    "prompt_cache_options": harmless("OpenAI", "prompts are always cached"),
    "prompt_cache_retention": harmless("OpenAI", "prompts are always cached"),
    "service_tier": harmless("OpenAI", "all requests have the same priority"),
    "prediction": harmless("OpenAI", "it changes the speed, not the answer"),
    "modalities": only("OpenAI", ["text"], [], why="answers are text"),
    "audio": only("OpenAI", why="answers are text"),
    "verbosity": only("OpenAI", "medium", why="ask for a length in a message"),
    "moderation": only("OpenAI", why="remove it"),
    "web_search_options": only("OpenAI", why="web search is not supported"),
    "functions": only("OpenAI", [], why="use tools"),
    "function_call": only("OpenAI", "none", "auto", why="use tool_choice"),
}

LLAMA_SERVER: Mapping[str, FieldRule] = {
    "n_predict": alias("llama-server", "max_tokens"),
    "n_cmpl": alias("llama-server", "n"),
    "grammar": alias("llama-server", "structured_outputs.grammar"),
    "json_schema": alias("llama-server", "structured_outputs.json"),
    "cache_prompt": harmless("llama-server", "prompts are always cached"),
    "n_cache_reuse": harmless("llama-server", "prompts are always cached"),
    "id_slot": harmless("llama-server", "slots are found by their prompts"),
    "n_keep": harmless("llama-server", "contexts are not shifted"),
    "n_discard": harmless("llama-server", "contexts are not shifted"),
    "timings_per_token": harmless("llama-server", "timings come with the last event"),
    "parse_tool_calls": only("llama-server", True),
    "backend_sampling": harmless("llama-server", "it changes the speed, not the answer"),
    "preserved_tokens": harmless("llama-server", "only lazy grammars use it, which are not supported"),
    "return_tokens": only("llama-server", False, why="use return_token_ids"),
    "n_probs": only("llama-server", 0, why="use logprobs and top_logprobs"),
    "min_keep": only("llama-server", 0),
    "post_sampling_probs": only("llama-server", False, why="log-probabilities are those before sampling"),
    "samplers": only("llama-server", SAMPLERS, why="the order of samplers is fixed"),
    "adaptive_target": only("llama-server", -1),
    "adaptive_decay": harmless("llama-server", "only adaptive_target uses it, which is not supported"),
    "t_max_predict_ms": only("llama-server", -1, 0, why="use max_tokens"),
    "t_max_prompt_ms": only("llama-server", -1, 0),
    "n_indent": only("llama-server", 0),
    "response_fields": only("llama-server", []),
    "lora": only("llama-server", []),
    "grammar_lazy": only("llama-server", False),
    "grammar_triggers": only("llama-server", []),
    "chat_format": only("llama-server"),
    "chat_parser": only("llama-server"),
    "reasoning_format": only("llama-server", "auto", "deepseek", why="reasoning comes as reasoning_content"),
    "reasoning_budget_tokens": alias("llama-server", "thinking_token_budget"),
    "thinking_budget_tokens": alias("llama-server", "thinking_token_budget"),
    "thinking_forced_open": only("llama-server", False),
    "speculative.n_max": harmless("llama-server", "it changes the speed, not the answer; see speculate"),
    "speculative.n_min": harmless("llama-server", "see speculative.n_max"),
    "speculative.p_min": harmless("llama-server", "see speculative.n_max"),
    "speculative.type": harmless("llama-server", "see speculative.n_max"),
    "verbose": only("llama-server", False),
}

VLLM: Mapping[str, FieldRule] = {
    "repetition_penalty": alias("vLLM", "repeat_penalty"),
    "guided_json": alias("vLLM", "structured_outputs.json"),
    "guided_regex": alias("vLLM", "structured_outputs.regex"),
    "guided_choice": alias("vLLM", "structured_outputs.choice"),
    "guided_grammar": alias("vLLM", "structured_outputs.grammar"),
    "guided_decoding_backend": harmless("vLLM", "mixcli has one backend for it"),
    "request_id": harmless("vLLM", "use the header X-Request-Id"),
    "session_id": harmless("vLLM", "prompts are always cached"),
    "include_reasoning": only("vLLM", True),
    "best_of": only("vLLM", 1),
    "use_beam_search": only("vLLM", False),
    "length_penalty": only("vLLM", 1, why="only beam search uses it"),
    "stop_token_ids": only("vLLM", [], why="use stop"),
    "include_stop_str_in_output": only("vLLM", False),
    "skip_special_tokens": only("vLLM", True),
    "spaces_between_special_tokens": harmless("vLLM", "special tokens are not shown"),
    "truncate_prompt_tokens": only("vLLM", why="use on_overflow"),
    "truncation_side": only("vLLM", why="use on_overflow"),
    "prompt_logprobs": only("vLLM", False, 0, why="remove it"),
    "logprob_token_ids": only("vLLM", why="use top_logprobs"),
    "return_tokens_as_token_ids": only("vLLM", False, why="use return_token_ids"),
    "allowed_token_ids": only("vLLM", why="use logit_bias or structured_outputs"),
    "bad_words": only("vLLM", [], why="use logit_bias"),
    "logits_processors": only("vLLM", []),
    "repetition_detection": only("vLLM"),
    "echo": only("vLLM", False),
    "add_special_tokens": only("vLLM", False),
    "documents": only("vLLM", [], why="put the documents into a message"),
    "chat_template": only("vLLM", why="the model's own chat format is used"),
    "media_io_kwargs": only("vLLM", {}),
    "mm_processor_kwargs": only("vLLM", {}),
    "guided_whitespace_pattern": only("vLLM"),
    "structural_tag": only("vLLM"),
    "watermarking": only("vLLM", False),
    "priority": only("vLLM", 0),
    "cache_salt": only("vLLM", why="all clients share one prompt cache"),
    "kv_transfer_params": only("vLLM", {}),
    "vllm_xargs": only("vLLM", {}),
}

MISTRAL: Mapping[str, FieldRule] = {
    "random_seed": alias("Mistral", "seed"),
    "safe_prompt": only("Mistral", False, why="put the text of a safety prompt into a system message"),
    "prompt_mode": only("Mistral"),
    "guardrails": only("Mistral", []),
    "top_prompt_logprobs": only("Mistral", 0),
}

OTHERS: Mapping[str, FieldRule] = {
    "regex": alias("SGLang", "structured_outputs.regex"),
    "ebnf": only("SGLang", why="use grammar"),
    "keep_alive": only("Ollama", why="pass --keep-alive to mixcli serve"),
    "options": only("Ollama", {}, why="send its fields beside messages"),
    "format": only("Ollama", "", why="use response_format"),
    "think": alias("Ollama", "enable_thinking"),
    "thinking": alias("DeepSeek", "enable_thinking"),
    "reasoning": only("OpenRouter", {}),
    "provider": only("OpenRouter", {}),
    "models": only("OpenRouter", []),
    "plugins": only("OpenRouter", []),
    "transforms": only("OpenRouter", [], why="use on_overflow"),
}

CHAT_RULES: Mapping[str, FieldRule] = {**OPENAI, **LLAMA_SERVER, **VLLM, **MISTRAL, **OTHERS}

MESSAGE_RULES: Mapping[str, FieldRule] = {
    "annotations": harmless("OpenAI", "describes an earlier answer"),
    "cache_control": harmless("Anthropic", "prompts are always cached"),
    "provider_specific_fields": harmless("LiteLLM", "describes an earlier answer"),
    "refusal": only("OpenAI", "", why="it is read where an assistant's message has no content"),
    "audio": only("OpenAI", why="conversations are text"),
    "function_call": only("OpenAI", why="use tool_calls"),
    "reasoning": alias("OpenRouter", "reasoning_content"),
    "images": only("Ollama", [], why="conversations are text"),
}

PART_RULES: Mapping[str, FieldRule] = {
    "cache_control": harmless("Anthropic", "prompts are always cached"),
    "prompt_cache_breakpoint": harmless("OpenAI", "prompts are always cached"),
}

STREAM_RULES: Mapping[str, FieldRule] = {
    "include_obfuscation": harmless("OpenAI", "pads events; their text is the same"),
    "continuous_usage_stats": only("vLLM", False, why="the counts come with the last event"),
}

SCHEMA_RULES: Mapping[str, FieldRule] = {
    "description": harmless("OpenAI", "the schema alone is enforced"),
}

STRUCTURED_RULES: Mapping[str, FieldRule] = {
    "disable_fallback": harmless("vLLM", "mixcli has one backend for it"),
    "disable_any_whitespace": only("vLLM", False),
    "disable_additional_properties": only("vLLM", False),
    "whitespace_pattern": only("vLLM"),
    "structural_tag": only("vLLM"),
    "json_object": only("vLLM", False, why="use response_format"),
}

TEMPLATE_OPTION_RULES: Mapping[str, FieldRule] = {
    "thinking": alias("DeepSeek", "enable_thinking"),
    "clear_thinking": only("GLM", False, why="reasoning is kept where the format has a place for it"),
}

CALL_RULES: Mapping[str, FieldRule] = {
    "cache_control": harmless("Anthropic", "prompts are always cached"),
    "provider_specific_fields": harmless("LiteLLM", "describes an earlier answer"),
    "extra_content": harmless("Google", "describes an earlier answer"),
}

__all__ = [
    "CALL_RULES",
    "CHAT_RULES",
    "MESSAGE_RULES",
    "PART_RULES",
    "SCHEMA_RULES",
    "STREAM_RULES",
    "STRUCTURED_RULES",
    "TEMPLATE_OPTION_RULES",
]
