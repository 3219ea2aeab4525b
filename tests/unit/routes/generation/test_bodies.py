"""What a body says, and what is refused: nothing is ignored silently."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.chat import completion_create_params as chat_params

from serving.config import ServerConfig
from serving.routes.generation.bodies import (
    MAX_BIASES,
    MAX_SEED,
    MAX_STOPS,
    ChatBody,
    CompletionsBody,
)
from serving.seams import Message
from tests.unit.routes.generation.conftest import CHAT, COMPLETIONS, ROUTES, body_of

SERVER = ServerConfig(request_timeout_s=7, generation_timeout_s=70)


def completion(**fields: Any) -> Any:
    return CompletionsBody.model_validate({"prompt": "x", **fields}).to_request(SERVER)


def chat(*messages: dict[str, Any], **fields: Any) -> Any:
    given = list(messages) or [{"role": "user", "content": "x"}]
    return ChatBody.model_validate({"messages": given, **fields}).to_request(SERVER)


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


async def refusal(generator: Any, route: str, **fields: Any) -> dict[str, str]:
    response = await generator.post(route, **fields)
    assert response.status_code == 422, response.text
    assert generator.fake.requests == []
    error: dict[str, str] = response.json()["error"]
    assert error["code"] == "invalid_field"
    return error


class TestDefaults:
    """As OpenAI's."""

    @pytest.mark.parametrize("request_", [completion(), chat()], ids=["completions", "chat"])
    def test_of_both(self, request_: Any) -> None:
        sampling = request_.sampling
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1, 1, 0)
        assert (sampling.frequency_penalty, sampling.presence_penalty) == (0, 0)
        assert (sampling.min_p, sampling.repetition_penalty, sampling.logit_bias) == (0, 1, ())
        assert sampling.logprobs is None
        assert (request_.n, request_.stop, request_.echo, request_.stream) == (1, (), False, False)
        assert (request_.first_token_timeout_s, request_.timeout_s) == (7, 70)

    def test_limits(self) -> None:
        assert completion().max_tokens == 16
        assert chat().max_tokens is None

    def test_each_request_draws_a_seed(self) -> None:
        seeds = {completion().sampling.seed for _ in range(20)}
        assert len(seeds) == 20
        assert all(0 <= seed <= MAX_SEED for seed in seeds)

    @pytest.mark.parametrize(
        ("body", "required"),
        [
            (CompletionsBody, {"prompt": "x"}),
            (ChatBody, {"messages": [{"role": "user", "content": "x"}]}),
        ],
    )
    def test_null_means_left_out(self, body: Any, required: dict[str, Any]) -> None:
        nulls = {name: None for name in body.model_fields if name not in required}
        assert body.model_validate({**required, **nulls}) == body.model_validate(required)


class TestFields:
    def test_sampling(self) -> None:
        sampling = completion(
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            seed=11,
            frequency_penalty=-2,
            presence_penalty=1.5,
        ).sampling
        assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (
            0.5,
            0.9,
            40,
            11,
        )
        assert (sampling.frequency_penalty, sampling.presence_penalty) == (-2, 1.5)

    @pytest.mark.parametrize("ask", [completion, chat])
    def test_the_model_s_end_may_be_ignored(self, ask: Any) -> None:
        assert ask(ignore_eos=True).ignores_end
        assert not ask().ignores_end

    def test_of_other_servers(self) -> None:
        fields = {"min_p": 0.1, "repetition_penalty": 1.2, "logit_bias": {"50256": -100, "7": 1.5}}
        for sampling in (completion(**fields).sampling, chat(**fields).sampling):
            assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.2)
            assert sampling.logit_bias == ((7, 1.5), (50256, -100))

    @pytest.mark.parametrize(
        ("stop", "expected"), [("\n", ("\n",)), (["a", "b"], ("a", "b")), ([], ())]
    )
    def test_stop(self, stop: Any, expected: tuple[str, ...]) -> None:
        assert completion(stop=stop).stop == expected

    @pytest.mark.parametrize(
        ("prompt", "expected"),
        [
            ("one", ("one",)),
            (["one", "two"], ("one", "two")),
            ([1, 2, 3], ((1, 2, 3),)),
            ([[1, 2], [3]], ((1, 2), (3,))),
        ],
    )
    def test_prompts(self, prompt: Any, expected: tuple[Any, ...]) -> None:
        request = completion(prompt=prompt, n=3, echo=True, stream=True, max_tokens=0)
        assert (request.prompts, request.messages) == (expected, ())
        assert (request.n, request.echo, request.stream, request.max_tokens) == (3, True, True, 0)

    def test_messages(self) -> None:
        request = chat(
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [part("a"), part("b")]},
            {"role": "assistant", "content": "", "refusal": None, "tool_calls": []},
        )
        assert request.prompts == ()
        assert request.messages == (
            Message("system", "be brief"),
            Message("user", "a\nb"),
            Message("assistant", ""),
        )

    @pytest.mark.parametrize("limits", [{"max_tokens": 5}, {"max_completion_tokens": 5}])
    def test_either_name_of_the_limit(self, limits: dict[str, int]) -> None:
        assert chat(**limits).max_tokens == 5

    def test_both_names_of_the_same_limit(self) -> None:
        assert chat(max_tokens=5, max_completion_tokens=5).max_tokens == 5

    def test_logprobs(self) -> None:
        assert completion(logprobs=0).sampling.logprobs == 0
        assert completion(logprobs=5).sampling.logprobs == 5
        assert chat(logprobs=True).sampling.logprobs == 0
        assert chat(logprobs=True, top_logprobs=20).sampling.logprobs == 20
        assert chat(logprobs=False).sampling.logprobs is None


class TestNone:
    """-1 means "none" to the clients of several servers."""

    @pytest.mark.parametrize("ask", [completion, chat])
    def test_of_both(self, ask: Any) -> None:
        assert ask(top_k=-1).sampling.top_k == 0
        assert ask(max_tokens=-1).max_tokens is None
        assert len({ask(seed=-1).sampling.seed for _ in range(20)}) == 20

    def test_of_a_chat(self) -> None:
        assert chat(max_completion_tokens=-1, max_tokens=-1).max_tokens is None

    @pytest.mark.parametrize("content", [{"content": None}, {}])
    def test_an_assistant_who_said_nothing(self, content: Any) -> None:
        turn = {"role": "assistant", **content}
        assert chat(turn, {"role": "user", "content": "x"}).messages[0] == Message("assistant", "")

    @pytest.mark.parametrize("field", ["stop", "stream_options", "seed", "logit_bias"])
    def test_null(self, field: str) -> None:
        given = CompletionsBody.model_validate({"prompt": "x", field: None})
        assert given == CompletionsBody(prompt="x")


class TestSeeds:
    @pytest.mark.parametrize("seed", [0, 7, MAX_SEED])
    def test_those_that_fit_are_left_as_they_are(self, seed: int) -> None:
        assert completion(seed=seed).sampling.seed == seed

    @pytest.mark.parametrize("seed", [MAX_SEED + 1, 2**63 - 1, 2**64 - 1, -2, -(2**63)])
    def test_others_of_64_bits_stand_for_one_that_fits(self, seed: int) -> None:
        found = completion(seed=seed).sampling.seed
        assert 0 <= found <= MAX_SEED
        assert (found - seed) % (MAX_SEED + 1) == 0
        assert completion(seed=seed).sampling.seed == found


DO_NOTHING = [
    {"top_p": 0},
    {"ignore_eos": False},
    {"min_tokens": 0},
    {"stop_token_ids": []},
    {"cache_salt": "s", "priority": 5, "request_id": "r"},
    {"bad_words": [], "detokenize": True, "early_stopping": False},
    {"return_token_ids": False, "return_tokens_as_token_ids": False},
    {"include_stop_str_in_output": False, "spaces_between_special_tokens": True},
    {"a_field_that_nobody_knows": None},
    {"stop": [str(i) for i in range(MAX_STOPS)]},
    {"store": True},
    {"metadata": {"a": "b"}},
    {"prompt_cache_key": "k"},
    {"prompt_cache_options": {"mode": "explicit"}},
    {"prompt_cache_retention": "24h"},
    {"safety_identifier": "x"},
    {"service_tier": "flex"},
    {"logit_bias": {}},
    {"user": "someone"},
    {"response_format": {"type": "text"}},
    {"guided_json": None},
    {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
]
DO_NOTHING_IN_CHAT = [
    {"tools": []},
    {"tool_choice": "none"},
    {"tool_choice": "auto"},
    {"functions": []},
    {"function_call": "none"},
    {"parallel_tool_calls": True},
    {"modalities": ["text"]},
    {"prediction": {"type": "content", "content": "x"}},
    {"add_generation_prompt": True, "add_special_tokens": False, "echo": False},
    {"chat_template_kwargs": {}, "documents": []},
    {"messages": [{"role": "assistant", "content": "{}", "parsed": {}, "refusal": None}]},
    {"messages": [{"role": "user", "content": "x", "name": "Ann", "cache_control": {"a": "b"}}]},
    {"messages": [{"role": "user", "content": [{**part("x"), "cache_control": {"a": "b"}}]}]},
]


class TestHarmless:
    """Values that do nothing are accepted, since some clients always send them."""

    @pytest.mark.parametrize("fields", DO_NOTHING)
    @pytest.mark.parametrize("route", ROUTES)
    async def test_on_both_routes(self, replica_generator, route: str, fields: Any) -> None:
        assert (await replica_generator.post(route, **fields)).status_code == 200

    @pytest.mark.parametrize("fields", DO_NOTHING_IN_CHAT)
    async def test_in_a_chat(self, replica_generator, fields: Any) -> None:
        assert (await replica_generator.post(CHAT, **fields)).status_code == 200

    @pytest.mark.parametrize("fields", [{"best_of": 1}, {"best_of": 3, "n": 3}, {"suffix": ""}])
    async def test_in_completions(self, replica_generator, fields: Any) -> None:
        assert (await replica_generator.post(COMPLETIONS, **fields)).status_code == 200


NOT_SUPPORTED = [
    ("bad_words", ["x"]),
    ("detokenize", False),
    ("early_stopping", True),
    ("include_stop_str_in_output", True),
    ("length_penalty", 2),
    ("return_token_ids", True),
    ("return_tokens_as_token_ids", True),
    ("spaces_between_special_tokens", False),
    ("skip_special_tokens", False),
    ("stop_token_ids", [7]),
    ("use_beam_search", True),
]
NOT_SUPPORTED_IN_CHAT = [
    ("add_generation_prompt", False),
    ("add_special_tokens", True),
    ("chat_template_kwargs", {"enable_thinking": False}),
    ("continue_final_message", True),
    ("documents", [{"text": "x"}]),
    ("echo", True),
    ("audio", {"voice": "alloy", "format": "wav"}),
    ("function_call", "auto"),
    ("functions", [{"name": "f"}]),
    ("modalities", ["text", "audio"]),
    ("moderation", {"model": "m"}),
    ("reasoning_effort", "low"),
    ("verbosity", "low"),
    ("web_search_options", {}),
]
NOT_SUPPORTED_IN_COMPLETIONS = [
    ("add_special_tokens", False),
    ("suffix", "the end"),
    ("best_of", 2),
]


class TestNotSupported:
    @pytest.mark.parametrize(
        ("route", "field", "value"),
        [(route, *case) for route in ROUTES for case in NOT_SUPPORTED]
        + [(CHAT, *case) for case in NOT_SUPPORTED_IN_CHAT]
        + [(COMPLETIONS, *case) for case in NOT_SUPPORTED_IN_COMPLETIONS],
    )
    async def test_a_field_is_named(self, replica_generator, route, field, value) -> None:
        error = await refusal(replica_generator, route, **{field: value})
        assert error["param"] == field
        assert error["message"].startswith(f"{field}: not supported; leave it out")

    async def test_what_would_be_accepted_is_told(self, replica_generator) -> None:
        error = await refusal(replica_generator, CHAT, modalities=["audio"])
        assert error["message"].endswith('leave it out or send ["text"]')

    @pytest.mark.parametrize(
        ("body", "params"),
        [
            (CompletionsBody, openai.types.completion_create_params.CompletionCreateParamsBase),
            (ChatBody, chat_params.CompletionCreateParamsBase),
        ],
    )
    def test_every_field_of_openai_s_own_client_is_known(self, body: Any, params: Any) -> None:
        """An unknown one would be refused as a slip of the pen, not as something missing."""
        assert set(params.__annotations__) <= set(body.model_fields)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("reasoning_content", "well"),
            ("refusal", "no"),
            ("audio", {"id": "a"}),
            ("function_call", {"name": "f", "arguments": ""}),
            ("annotations", [{"type": "url_citation"}]),
        ],
    )
    async def test_of_a_message(self, replica_generator, field: str, value: Any) -> None:
        messages = [{"role": "assistant", "content": "x", field: value}]
        error = await refusal(replica_generator, CHAT, messages=messages)
        assert error["param"] == "messages"
        assert error["message"].startswith(f"messages[0].{field}: not supported")

    @pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "refusal"])
    async def test_of_a_part(self, replica_generator, kind: str) -> None:
        parts = [{"type": "text", "text": "look"}, {"type": kind, kind: {"url": "http://x"}}]
        messages = [{"role": "user", "content": parts}]
        error = await refusal(replica_generator, CHAT, messages=messages)
        assert error["message"] == (
            f"messages[0].content: parts of type '{kind}' are not supported; send text"
        )

    @pytest.mark.parametrize("role", ["function", "robot", 1])
    async def test_a_role(self, replica_generator, role: Any) -> None:
        messages = [{"role": role, "content": "x"}]
        error = await refusal(replica_generator, CHAT, messages=messages)
        assert error["message"].startswith("messages[0].role: ")
        assert "'system', 'developer', 'user', 'assistant' or 'tool'" in error["message"]


OUT_OF_BOUNDS = [
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", "1"),
    ("temperature", True),
    ("top_p", -0.1),
    ("top_p", 1.1),
    ("top_k", -2),
    ("top_k", 1.5),
    ("seed", 2**64),
    ("seed", -(2**63) - 1),
    ("seed", True),
    ("seed", "7"),
    ("n", 0),
    ("n", True),
    ("max_tokens", -2),
    ("max_tokens", 2.5),
    ("stop", ""),
    ("stop", ["a", ""]),
    ("stop", ["a"] * (MAX_STOPS + 1)),
    ("metadata", "a"),
    ("store", "yes"),
    ("user", 1),
    ("stop", 1),
    ("frequency_penalty", -2.1),
    ("frequency_penalty", 2.1),
    ("presence_penalty", -2.1),
    ("presence_penalty", 2.1),
    ("stream", "yes"),
    ("stream", 1),
    ("ignore_eos", 1),
    ("min_tokens", 5),
    ("min_tokens", -1),
    ("min_tokens", True),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("min_p", True),
    ("repetition_penalty", 0),
    ("repetition_penalty", 101),
    ("logit_bias", [5]),
    ("logit_bias", {"the": 1}),
    ("logit_bias", {"-1": 1}),
    ("logit_bias", {"²": 1}),
    ("logit_bias", {"7": 1, "07": 2}),
    ("logit_bias", {"7": 101}),
    ("logit_bias", {"7": "1"}),
    ("logit_bias", {"7": None}),
    ("logit_bias", {"9" * 10: 1}),
    ("logit_bias", {str(i): 1 for i in range(MAX_BIASES + 1)}),
    ("temprature", 1),
    ("inptu", "x"),
]


def history(arguments: str) -> Any:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "tool_calls": [call]}


def tool(parameters: Any) -> Any:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


def schema(of_answer: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": of_answer}}


class TestBounds:
    @pytest.mark.parametrize(("field", "value"), OUT_OF_BOUNDS)
    @pytest.mark.parametrize("route", ROUTES)
    async def test_of_both(self, replica_generator, route: str, field: str, value: Any) -> None:
        error = await refusal(replica_generator, route, **{field: value})
        assert error["param"] == field
        assert error["message"].startswith(field)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("prompt", ""),
            ("prompt", []),
            ("prompt", ["a", ""]),
            ("prompt", None),
            ("logprobs", -1),
            ("logprobs", 6),
            ("logprobs", True),
            ("echo", "yes"),
            ("messages", []),
            ("max_completion_tokens", 5),
            ("top_logprobs", 1),
        ],
    )
    async def test_of_completions(self, replica_generator, field: str, value: Any) -> None:
        error = await refusal(replica_generator, COMPLETIONS, **{field: value})
        assert error["param"] == field

    @pytest.mark.parametrize(
        "prompt",
        [[-1], [1, "a"], ["a", 1], [[1], "a"], [[]], [[1], []], [1.5], [True], [[True]], [2**31]],
    )
    async def test_token_ids(self, replica_generator, prompt: Any) -> None:
        error = await refusal(replica_generator, COMPLETIONS, prompt=prompt)
        assert error["param"] == "prompt"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("messages", []),
            ("messages", None),
            ("messages", "hello"),
            ("messages", [{"role": "user"}]),
            ("messages", [{"role": "user", "content": None}]),
            ("messages", [{"role": "user", "content": []}]),
            ("messages", [{"role": "user", "content": "x", "mood": "good"}]),
            ("messages", [{"role": "user", "content": [{"type": "text"}]}]),
            ("messages", [{"role": "user", "content": ["x"]}]),
            ("messages", [{"content": "x"}]),
            ("max_tokens", 0),
            ("max_completion_tokens", 0),
            ("logprobs", 3),
            ("echo", True),
            ("prompt", "x"),
        ],
    )
    async def test_of_a_chat(self, replica_generator, field: str, value: Any) -> None:
        error = await refusal(replica_generator, CHAT, **{field: value})
        assert error["param"] == field

    @pytest.mark.parametrize("route", ROUTES)
    @pytest.mark.parametrize("fields", [{"ignore_eos": False}, {"stop": "x"}, {"max_tokens": 4}])
    async def test_at_least_so_many_tokens(self, replica_generator, route: str, fields) -> None:
        good = {"min_tokens": 5, "ignore_eos": True, "max_tokens": 5}
        assert (await replica_generator.post(route, **good)).status_code == 200
        replica_generator.fake.requests.clear()
        error = await refusal(replica_generator, route, **{**good, **fields})
        assert error["param"] == "min_tokens"

    async def test_two_limits(self, replica_generator) -> None:
        fields = {"max_tokens": 5, "max_completion_tokens": 6}
        error = await refusal(replica_generator, CHAT, **fields)
        assert error["message"] == (
            "max_completion_tokens: differs from max_tokens, which is 5; send one of the two"
        )

    @pytest.mark.parametrize("value", [0, 1, 21])
    async def test_top_logprobs_without_logprobs(self, replica_generator, value: int) -> None:
        error = await refusal(replica_generator, CHAT, top_logprobs=value)
        assert error["param"] == "top_logprobs"

    async def test_more_top_logprobs_than_may_be(self, replica_generator) -> None:
        error = await refusal(replica_generator, CHAT, logprobs=True, top_logprobs=21)
        assert error["param"] == "top_logprobs"

    @pytest.mark.parametrize("route", ROUTES)
    @pytest.mark.parametrize(
        "fields",
        [
            {"stream_options": {"include_usage": True}},
            {"stream": False, "stream_options": {}},
            {"stream": True, "stream_options": {"include_usage": "yes"}},
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            {"stream": True, "stream_options": {"usage": True}},
        ],
    )
    async def test_stream_options(self, replica_generator, route: str, fields: Any) -> None:
        assert (await refusal(replica_generator, route, **fields))["param"] == "stream_options"

    @pytest.mark.parametrize(("prompts", "n"), [(1, 7), (7, 1), (3, 3)])
    async def test_choices_in_one_request(self, open_generator, prompts: int, n: int) -> None:
        generator = open_generator(max_inputs=6)
        error = await refusal(generator, COMPLETIONS, prompt=["x"] * prompts, n=n)
        assert error["param"] == "n"
        assert error["message"] == f"{prompts * n} choices; at most 6 in one request"

    async def test_as_many_choices_as_may_be(self, open_generator) -> None:
        generator = open_generator(max_inputs=6)
        assert (await generator.post(COMPLETIONS, prompt=["x"] * 3, n=2)).status_code == 200
        assert (await generator.post(CHAT, n=6)).status_code == 200

    async def test_choices_of_a_chat(self, open_generator) -> None:
        assert (await refusal(open_generator(max_inputs=6), CHAT, n=7))["param"] == "n"

    @pytest.mark.parametrize(
        ("route", "fields"),
        [
            (COMPLETIONS, {"prompt": "\ud800"}),
            (COMPLETIONS, {"stop": "\ud800"}),
            (CHAT, {"messages": [{"role": "user", "content": "\ud800"}]}),
            (CHAT, {"messages": [history('{"a": "\\ud800"}')]}),
            (CHAT, {"messages": [history('{"\\ud800": 1}')]}),
            (CHAT, {"tools": [tool({"properties": {"\ud800": {"type": "string"}}})]}),
            (CHAT, {"tools": [tool({"default": ["\ud800"]})]}),
            (CHAT, {"response_format": schema({"const": "\ud800"})}),
            (CHAT, {"response_format": schema({"properties": {"\ud800": {"nullable": True}}})}),
        ],
    )
    async def test_half_a_character(self, replica_generator, route: str, fields: Any) -> None:
        response = await replica_generator.site.client.post(
            route,
            content=json.dumps(body_of(route, **fields)),
            headers={"Content-Type": "application/json"},
        )
        assert response.status_code == 422, response.text
        assert response.json()["error"]["param"] == next(iter(fields))
