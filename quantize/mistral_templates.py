"""Chat templates for Mistral's tokenizer versions, for folders that bring none.

Each writes the text that llama.cpp tokenizes to what mistral_common encodes. SentencePiece puts a space before a text that follows a
control token, so none is written there. Version 1 has no control tokens; there "[INST]" is text.
"""

_HEAD = """\
{%- if messages and messages[0]['role'] == 'system' -%}
{%- set system, turns = messages[0]['content'] + '\\n\\n', messages[1:] -%}
{%- else -%}
{%- set system, turns = '', messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for turn in turns -%}
"""
_TAIL = """\
{%- else -%}
{{- raise_exception('roles are user and assistant, and system for the first message') -}}
{%- endif -%}
{%- endfor -%}
"""
_ANSWER = """\
{%- elif turn['role'] == 'assistant' -%}
{{- turn['content'].rstrip(' ') + eos_token -}}
"""

V1 = (
    _HEAD
    + """\
{%- if turn['role'] == 'user' -%}
{{- '[INST] ' + (system if loop.first else '') + turn['content'] + ' [/INST]' -}}
{%- elif turn['role'] == 'assistant' -%}
{{- ' ' + turn['content'] + eos_token -}}
"""
    + _TAIL
)

# The system text opens the last turn of the user.
V3 = (
    _HEAD
    + """\
{%- if turn['role'] == 'user' -%}
{{- '[INST]' + (system if turns[loop.index:] | selectattr('role', 'equalto', 'user') | list | length == 0 else '') -}}
{{- turn['content'] + '[/INST]' -}}
"""
    + _ANSWER
    + _TAIL
)

V7 = (
    """\
{{- bos_token -}}
{%- for turn in messages -%}
{%- if turn['role'] == 'system' -%}
{{- '[SYSTEM_PROMPT]' + turn['content'] + '[/SYSTEM_PROMPT]' -}}
{%- elif turn['role'] == 'user' -%}
{{- '[INST]' + turn['content'] + '[/INST]' -}}
"""
    + _ANSWER
    + _TAIL
)

# Versions that share a template differ in tool calls, which these templates leave out.
BY_VERSION = {"v1": V1, "v2": V3, "v3": V3, "v7": V7, "v11": V7, "v13": V7}
