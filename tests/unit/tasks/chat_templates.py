"""Chat templates in the styles of well-known models, each with the control tokens that it writes.

They are ours, and use what such templates use: loops with breaks, namespaces, macros, filters,
whitespace control, the date, JSON, refusals, splitting of answers, tags for training.
"""

# ruff: noqa: RUF001 (DeepSeek's control tokens have full-width bars)

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """A template and what its tokenizer has to know.

    Attributes:
        source: The template.
        special: Special added tokens, the first two being ``bos_token`` and ``eos_token``.
        plain: Added tokens that are not special.
        is_byte_level: Whether its tokenizer is; else it is like those of sentencepiece.
    """

    source: str
    special: tuple[str, ...]
    plain: tuple[str, ...] = ()
    is_byte_level: bool = True


LLAMA3 = Style(
    """{{- bos_token }}
{#- The system message always comes, with the date. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
)

QWEN = Style(
    """{%- set ns = namespace(last_question=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == "user" and not ns.found %}
        {%- set ns.found = true %}
        {%- set ns.last_question = index %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- generation %}
            {{- '<|im_start|>assistant\\n' }}
            {%- if loop.index0 > ns.last_question %}
                {{- '<think>\\n\\n</think>\\n\\n' }}
            {%- endif %}
            {{- content + '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<tool_response>' + message | tojson + '</tool_response>' }}
        {%- continue %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    ("<|startoftext|>", "<|im_end|>", "<|im_start|>"),
    ("<think>", "</think>", "<tool_response>", "</tool_response>", "<unused_0>"),
)

MISTRAL = Style(
    """{{ bos_token }}
{%- if messages[0]["role"] == "system" -%}
    {%- set system = messages[0]["content"] -%}{%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) -%}
        {{- raise_exception("Roles must take turns: user, assistant, user, …") -}}
    {%- endif -%}
    {%- if message["role"] == "user" -%}
        {%- if loop.first and system is defined -%}
            {{- "[INST] " + system + "\\n\\n" + message["content"] + "[/INST]" -}}
        {%- else -%}
            {{- "[INST] " + message["content"] + "[/INST]" -}}
        {%- endif -%}
    {%- elif message["role"] == "assistant" -%}
        {{- " " + message["content"] | trim + eos_token -}}
    {%- else -%}
        {{- raise_exception("Only user, assistant and one system message at the start") -}}
    {%- endif -%}
{%- endfor -%}""",
    ("<s>", "</s>"),
    ("[INST]", "[/INST]"),
    is_byte_level=False,
)

GEMMA = Style(
    """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{% macro turn(role, text) %}
{{ '<start_of_turn>' + role + '\n' + text | trim + '<end_of_turn>\n' }}
{% endmacro %}
{% for message in messages %}
    {% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{ turn(role, message['content']) }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<start_of_turn>model\n' }}{% endif %}
""",
    ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    ("\n", "\n\n"),
    is_byte_level=False,
)

DEEPSEEK = Style(
    """{% if not add_generation_prompt is defined %}
{% set add_generation_prompt = false %}{% endif %}
{% set ns = namespace(is_first=true, system_prompt='') %}
{%- for message in messages if message['role'] == 'system' %}
    {%- if ns.is_first %}
        {%- set ns.system_prompt = ns.system_prompt + message['content'] %}
        {%- set ns.is_first = false %}
    {%- else %}
        {%- set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}
    {%- endif %}
{%- endfor %}
{{ bos_token }}{{ ns.system_prompt }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {{- '<｜User｜>' + message['content'] }}
    {%- elif message['role'] == 'assistant' and message['content'] is not none %}
        {%- set content = message['content'] %}
        {%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
        {{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}
    {%- endif %}
{%- endfor -%}
{% if add_generation_prompt and messages[-1]['role'] == 'user' %}
{{ '<｜Assistant｜><think>\\n' }}{% endif %}""",
    ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
)

JSON = Style(
    """{%- set roles = dict(user='U', assistant='A', system='S') -%}
{%- set seen = dict.fromkeys(['a', 'b'], 1) -%}
{%- for message in messages -%}
    <|turn|>{{ roles[message.role] }}{{ message | tojson(indent=2) }}
{{ messages | tojson(sort_keys=true, separators=(',', ':')) }}<|stop|>
{%- endfor -%}
{{ seen | tojson }}""",
    ("<|start|>", "<|stop|>", "<|turn|>"),
)

STYLES = {
    "llama 3": LLAMA3,
    "qwen": QWEN,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "deepseek": DEEPSEEK,
    "json": JSON,
}
