"""OpenAI chat completions, and who speaks it: Azure, DeepSeek, Mistral, Ollama, vLLM, gateways."""

from collections.abc import Mapping
from typing import Any

from pipelines.chat.example import DroppedError, Example
from pipelines.chat.kinds import kind_of
from pipelines.chat.legacy import tool_choice_of, tools_of, with_tool_calls
from pipelines.chat.messages import clean_message
from pipelines.chat.shapes import (
    as_object,
    count_other_keys,
    example,
    function_tool,
    objects,
    refuse_fields,
)

_FINISH = {
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
}
_FAILED = frozenset({"error", "abort", "insufficient_system_resource", "load", "unload"})
# What the model saw or could do beside messages and tools.
_SEEN = ("system", "documents", "prompt_id")
_SERVED = ("web_search_options", "data_sources", "plugins", "search_parameters")


def is_request(request: Mapping[str, Any], response: object) -> bool:
    """Return whether this is a chat request with choices, or Ollama's one message."""
    body = as_object(response)
    answered = isinstance(body.get("choices"), list) or isinstance(body.get("message"), dict)
    return "messages" in request and answered and body.get("object") != "text_completion"


def to_example(
    request: Mapping[str, Any], response: Mapping[str, Any], tags: Mapping[str, str | None]
) -> Example:
    """Return the request's messages and the one choice.

    Raises:
        DroppedError: no choice, several of them, or something that chat messages cannot hold.
    """
    refuse_fields(request, _SEEN, "unsupported_content")
    refuse_fields(request, _SERVED, "unsupported_tool")
    refuse_fields(response, ("citations", "search_results"), "unsupported_content")
    repairs: list[str] = []
    tools = [
        _tool(tool, repairs) for tool in objects(request.get("tools"), "unsupported_tool", "tools")
    ]
    tools += tools_of(request.get("functions"), repairs)
    recorded = request.get("messages")
    if not isinstance(recorded, list) or not recorded:
        raise DroppedError("no_messages")
    answer, finish = _answer(response)
    messages = with_tool_calls([*recorded, answer], repairs)
    cleaned = [clean_message(message, repairs) for message in messages]
    choice = request.get("tool_choice")
    schema = request.get("response_format")
    parallel = request.get("parallel_tool_calls")
    return example(
        cleaned,
        tags,
        tools=tools,
        repairs=repairs,
        tool_choice=tool_choice_of(request.get("function_call")) if choice is None else choice,
        response_format=schema if isinstance(schema, dict) else None,
        parallel_tool_calls=parallel if isinstance(parallel, bool) else None,
        finish_reason=finish,
    )


def _answer(response: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the message of the one choice, and why it ended."""
    choices = response.get("choices")
    if choices is None:
        choices = [{**response, "finish_reason": response.get("done_reason")}]
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise DroppedError("no_choice")
    if len(choices) > 1:
        raise DroppedError("several_choices")
    choice = choices[0]
    if choice.get("error"):
        raise DroppedError("error_output", "choice")
    finish = _finish(
        choice["finish_reason"] if "finish_reason" in choice else choice.get("stop_reason")
    )
    message = choice.get("message")
    if not isinstance(message, dict):
        if finish != "content_filter":
            raise DroppedError("no_choice", "choice without a message")
        message = {"content": None}
    if message.get("role") not in (None, "", "assistant"):
        raise DroppedError("last_message_not_assistant")
    return {**message, "role": "assistant"}, finish


def _finish(recorded: object) -> str | None:
    """Return why an answer ended, in OpenAI's words."""
    if not isinstance(recorded, str) or not recorded:
        return None
    word = recorded.lower()
    if word in _FAILED:
        raise DroppedError("error_output", "finish reason of a failure")
    return _FINISH.get(word, word)


def _tool(tool: Mapping[str, Any], repairs: list[str]) -> dict[str, Any]:
    """Return a function tool as chat requests have it."""
    if tool.get("type") not in ("function", None) or not isinstance(tool.get("function"), dict):
        raise DroppedError("unsupported_tool", kind_of(tool.get("type")))
    function = tool["function"]
    count_other_keys(tool, ("type", "function"), repairs)
    count_other_keys(function, ("name", "description", "parameters", "strict"), repairs)
    return function_tool(
        function.get("name"),
        function.get("description"),
        function.get("parameters"),
        function.get("strict"),
    )
