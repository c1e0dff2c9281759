"""The Python client of a fleet."""

from __future__ import annotations

from tasks.client.fleet import AsyncFleet, AsyncHandle, Fleet, Handle
from tasks.client.results import Progress, ToolResult
from tasks.client.settings import ClientSettings

__all__ = ["AsyncFleet", "AsyncHandle", "ClientSettings", "Fleet", "Handle", "Progress", "ToolResult"]
