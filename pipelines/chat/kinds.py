"""The kinds of parts, items and tools that APIs define."""

_KINDS = frozenset(
    """
    audio bash_code_execution_tool_result code_execution_tool_result code_interpreter
    code_interpreter_call codeExecution codeExecutionResult compaction computer_call
    computer_call_output computer_use_preview container_upload custom custom_tool_call
    custom_tool_call_output document executableCode file file_search file_search_call fileData
    function function_call function_call_output functionCall functionResponse googleMaps
    googleSearch googleSearchRetrieval guardContent image image_generation image_generation_call
    image_url inlineData input_audio input_file input_image input_text item_reference json
    local_shell local_shell_call mcp mcp_approval_request mcp_approval_response mcp_call
    mcp_list_tools namespace output_audio output_text reasoningContent redacted_thinking reference
    retrieval search_result searchResult server_tool_use shell shell_call shell_call_output
    systemTool text thinking tool_addition tool_reference tool_removal tool_result tool_search
    tool_search_call tool_search_output tool_use toolResult toolUse urlContext video video_url
    web_fetch_tool_result web_search web_search_call web_search_preview web_search_tool_result
    citationsContent apply_patch apply_patch_call apply_patch_call_output refusal
    """.split()  # noqa: SIM905 - words a line of their own would fill two screens
)


def kind_of(kind: object) -> str:
    """Return the word for a kind if an API defines it, else "unknown kind".

    It stands in details, which name no word that a user wrote.
    """
    return kind if isinstance(kind, str) and kind in _KINDS else "unknown kind"
