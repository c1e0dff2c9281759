"""Why calls become dead letters, and what to do about it, in sentences for people. Pure.

The codes are those of docs/errors.md, which has all of them; here are those that leave a letter.
"""

from __future__ import annotations

from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    "retries_exhausted": "It was tried as often as its retry policy allows, and failed each time.",
    "permanent": "The failure is of a kind that another try would not change, so it was not tried again.",
    "tool_error": "The tool ran and said that it failed. That is its answer, so it is not repeated.",
    "unsafe_to_repeat": "It may have run, and its tool is not declared safe to repeat, so it was not tried again.",
    "poison": "Nodes died under it, or it was lost too often: it may be what ends them.",
    "deadline": "Its deadline passed before it had ended.",
}
"""By the letter's reason. Else the reason is the code of what was lost."""
ERRORS: Mapping[str, str] = {
    "tool_error": "Read the tool's answer on the call's page; mend what it works on, then replay.",
    "tool_timeout": "See whether the tool's work needs longer: give the call more time (timeout_s), then replay.",
    "connection_lost": "Look at the MCP server's log on that node: it ended, or closed the connection. Then replay.",
    "silent": "The server was started again. See its log; raise the tool's silence limit if long silence is normal.",
    "server_error": "Look at the MCP server's log on that node, mend it, then replay.",
    "server_busy": "Give the server more time or more nodes, then replay.",
    "server_unavailable": "The server does not run: see the node on the fleet page and its log, then replay.",
    "grant_required": "The tool needs a grant: have the agent ask AuthGuardian for one, then call it with that.",
    "grant_revoked": "Its grant was revoked while it ran: see what it had done, and in the audit log who revoked it.",
    "result_too_large": "Ask the tool for less, or raise the limit that the message names.",
    "bad_result": "The server's answer is no MCP result: mend the server.",
    "invalid_arguments": "The server refused the arguments: correct them and call the tool anew.",
    "unknown_tool": "No server has this tool any more: see which nodes run it, then replay.",
    "blob_missing": "What it needs is no longer in the blob store: call the tool anew.",
    "node_lost": "Its node fell silent and did not come back. See whether what it does was done; if not, replay.",
    "node_restarted": "Its node's process ended under it. See whether what it does was done; if not, replay.",
    "node_replaced": "Another process took its node's name. See whether what it does was done; if not, replay.",
    "node_drained": "Its node was shut down first. See whether what it does was done; if not, replay.",
    "node_error": "An error in the node: its log has the details. Then replay.",
    "deadline": "Give it more time, or add nodes so that it waits less; then replay: a replay has no deadline.",
    "deadline_passed": "Give it more time, or add nodes so that it waits less; then replay: a replay has no deadline.",
    "credential_refused": "Put a key that its provider takes into the sidecar's credential file, then replay.",
    "spawn_limit": "One run led to too many calls: look at what it does before you replay it.",
}
"""By the error's code."""
LOOK = "Read the message; the call's page has its attempts and its trace. Replay it when the cause is mended."


def why(reason: str) -> str:
    """Why it was not tried again."""
    return REASONS.get(reason, "What became of it is not known: it may have run, so it is not repeated by itself.")


def what_to_do(code: str) -> str:
    """What helps."""
    return ERRORS.get(code, LOOK)
