"""Chat templates for Mistral's tokenizer versions, for folders without one.

Each writes the text that llama.cpp tokenizes to what mistral_common encodes. SentencePiece puts a space before a text that follows a
control token, so none is written there. Version 1 has no control tokens; there "[INST]" is text.
"""

# Neighbors of the user are one turn, joined by an empty line, as mistral_common has it.
_TURNS = """\
{%- set state = namespace(system='', last=0, joins=false) -%}
{%- if messages and messages[0]['role'] == 'system' -%}
{%- if messages[0]['content'] -%}{%- set state.system = messages[0]['content'] + '\\n\\n' -%}{%- endif -%}
{%- set turns = messages[1:] -%}
{%- else -%}
{%- set turns = messages -%}
{%- endif -%}
"""
_LAST = """\
{%- for turn in turns -%}
{%- if turn['role'] == 'user' and (loop.first or loop.previtem['role'] != 'user') -%}
{%- set state.last = loop.index0 -%}
{%- endif -%}
{%- endfor -%}
"""
_FOR = """\
{{- bos_token -}}
{%- for turn in turns -%}
"""
_ROLES = """\
{%- if loop.first and turn['role'] != 'user' -%}
{{- raise_exception('roles are user and assistant, and system for the first message; the user speaks first') -}}
{%- endif -%}
"""
_USER = """\
{%- if turn['role'] == 'user' -%}
{%- if loop.first or loop.previtem['role'] != 'user' -%}
{%- set state.joins = false -%}
BEGIN
{%- endif -%}
{%- if turn['content'] -%}
{{- ('\\n\\n' if state.joins else '') + turn['content'] -}}
{%- set state.joins = true -%}
{%- endif -%}
{%- if loop.last or loop.nextitem['role'] != 'user' -%}
{{- 'END' -}}
{%- endif -%}
"""
_ANSWER = """\
{%- elif turn['role'] == 'assistant' -%}
{%- if not loop.last and loop.nextitem['role'] == 'assistant' -%}
{{- raise_exception('roles are user and assistant, and after an answer comes the user') -}}
{%- endif -%}
{{- ANSWER + eos_token -}}
"""
_TAIL = """\
{%- else -%}
{{- raise_exception('roles are user and assistant, and system for the first message') -}}
{%- endif -%}
{%- endfor -%}
"""


def _turns(begin: str, end: str, answer: str) -> str:
    return _USER.replace("BEGIN", begin).replace("END", end) + _ANSWER.replace("ANSWER", answer)


V1 = (
    _TURNS
    + _FOR
    + _ROLES
    + _turns(
        "{{- '[INST] ' + (state.system if loop.first else '') -}}",
        " [/INST]",
        "(' ' if turn['content'] else '') + turn['content']",
    )
    + _TAIL
)

# The system text opens the last turn of the user.
V3 = (
    _TURNS
    + _LAST
    + _FOR
    + _ROLES
    + _turns(
        "{{- '[INST]' + (state.system if loop.index0 == state.last else '') -}}",
        "[/INST]",
        "turn['content'].rstrip(' ')",
    )
    + _TAIL
)

V7 = (
    """\
{%- set state = namespace(joins=false) -%}
{{- bos_token -}}
{%- for turn in messages -%}
{%- if turn['role'] == 'system' -%}
{{- '[SYSTEM_PROMPT]' + turn['content'] + '[/SYSTEM_PROMPT]' -}}
"""
    + _turns("{{- '[INST]' -}}", "[/INST]", "turn['content'].rstrip(' ')").replace("{%- if", "{%- elif", 1)
    + _TAIL
)

# Settings precede the first turn of the user.
V15 = V7.replace("namespace(joins=false)", "namespace(joins=false, told=false)").replace(
    "{{- '[INST]' -}}",
    """\
{%- if not state.told -%}
{%- set effort = reasoning_effort if reasoning_effort is defined and reasoning_effort else 'none' -%}
{{- '[MODEL_SETTINGS]{"reasoning_effort": "' + effort + '"}[/MODEL_SETTINGS]' -}}
{%- set state.told = true -%}
{%- endif -%}
{{- '[INST]' -}}""",
)


def _named(version: str, template: str) -> str:
    """Name the version in a comment: those that share a template differ in tool calls, which these templates leave out."""
    return f"{{#- Mistral {version} -#}}\n{template}"


BY_VERSION = {
    "v1": V1,
    "v2": _named("v2", V3),
    "v3": V3,
    "v7": V7,
    "v11": _named("v11", V7),
    "v13": _named("v13", V7),
    "v15": V15,
}
