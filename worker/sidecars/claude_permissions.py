"""Claude Code's questions for permission, in the fleet's words: the SDK's `can_use_tool`."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

from tasks.approval import canonical
from worker.sidecars.sidecar import Ask

if TYPE_CHECKING:
    from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny, ToolPermissionContext


def asking(ask: Ask) -> dict[str, Any]:
    """Options of the SDK. In its mode `default` it asks for all that does more than read the workspace."""
    from claude_agent_sdk import CanUseToolShadowedWarning

    warnings.filterwarnings("ignore", category=CanUseToolShadowedWarning)  # allowed tools are meant not to ask

    async def can_use_tool(
        tool: str, given: dict[str, Any], _context: ToolPermissionContext
    ) -> PermissionResultAllow | PermissionResultDeny:
        from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny

        exact = json.loads(canonical(given))  # a copy: what was asked is what runs
        permission = await ask(tool, given)
        if permission.is_allowed:
            return PermissionResultAllow(updated_input=exact)
        return PermissionResultDeny(message=f"Denied: {permission.reason}")

    return {"permission_mode": "default", "can_use_tool": can_use_tool}
