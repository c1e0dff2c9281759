"""A tool's answer (MCP CallToolResult) as lines of text, and as files with `--output`.

Refuses to change the answer: `--json` carries it as it came. Source: MCP 2026-07-28, CallToolResult.
"""

from __future__ import annotations

import base64
import binascii
import json
import mimetypes
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.durations import size
from orchestrator.cli.exits import BadInput

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_NAME_MAX = 80
PATCH = "changes.patch"
"""The name of the part that `git apply` takes."""


@dataclass(frozen=True, slots=True)
class Part:
    """One content block: `text` to print, or `note` about what cannot be printed and its bytes."""

    text: str | None = None
    note: str | None = None
    data: bytes | None = None
    name: str = ""


def parts_of(result: Mapping[str, object]) -> list[Part]:
    """Every block in order, then what an agent changed; structured content only where nothing else says it."""
    blocks = result.get("content")
    parts = [_part(block, n) for n, block in enumerate(blocks if isinstance(blocks, list) else (), start=1)]
    structured = result.get("structuredContent")
    if structured is not None and not any(part.text for part in parts):
        text = json.dumps(structured, indent=2, ensure_ascii=False)
        parts.append(Part(text=text, data=text.encode(), name="structured.json"))
    if isinstance(structured, Mapping):
        parts += _patch(structured)
    return parts


def _patch(structured: Mapping[str, object]) -> list[Part]:
    """Source: docs/agents.md, the answer of a run."""
    text, packed = structured.get("patch"), structured.get("patch_base64")
    if isinstance(text, str) and text:
        return [Part(text=text, data=text.encode(), name=PATCH)]
    if isinstance(packed, str) and packed:
        return [_binary("patch", {"mimeType": "text/x-diff"}, 0, packed, name=PATCH)]
    return []


def is_error(result: Mapping[str, object] | None) -> bool:
    """The tool's own `isError`."""
    return bool(result and result.get("isError"))


def write_parts(parts: list[Part], directory: Path) -> Iterator[tuple[Path, int]]:
    """Write every block that has bytes; yields path and size. Names never leave `directory`.

    Raises:
        BadInput: the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for part in parts:
            data = part.data if part.data is not None else (part.text or "").encode()
            if not data:
                continue
            path = _free(directory, part.name)
            path.write_bytes(data)
            yield path, len(data)
    except OSError as error:
        raise BadInput(f"cannot write to {directory}: {error.strerror}; choose another --output") from error


def _part(block: object, number: int) -> Part:
    if not isinstance(block, Mapping):
        return Part(note=f"[block {number} is not an object]")
    match block.get("type"):
        case "text":
            return Part(text=str(block.get("text", "")), name=f"{number:02}.txt")
        case "image" | "audio" as kind:
            return _binary(str(kind), block, number, block.get("data"))
        case "resource":
            return _resource(block.get("resource"), number)
        case "resource_link":
            title = block.get("title") or block.get("name") or ""
            return Part(note=f"[link {block.get('uri')} {title}]".replace(" ]", "]"))
        case kind:
            return Part(note=f"[{kind}, which this version cannot show; --json has it]")


def _resource(resource: object, number: int) -> Part:
    if not isinstance(resource, Mapping):
        return Part(note=f"[block {number}: a resource that is not an object]")
    uri = str(resource.get("uri", ""))
    name = f"{number:02}-{_UNSAFE.sub('_', uri.rstrip('/').rsplit('/', 1)[-1]).lstrip('.')[:_NAME_MAX] or 'resource'}"
    text = resource.get("text")
    if isinstance(text, str):
        return Part(text=text, note=f"[resource {uri}]", name=name)
    return _binary(f"resource {uri}", resource, number, resource.get("blob"), name=name)


def _binary(kind: str, block: Mapping[str, object], number: int, data: object, name: str | None = None) -> Part:
    mime = str(block.get("mimeType") or "application/octet-stream")
    try:
        raw = base64.b64decode(str(data or ""), validate=True)
    except (binascii.Error, ValueError):
        return Part(note=f"[{kind} {mime}, whose base64 is broken]")
    suffix = mimetypes.guess_extension(mime) or ".bin"
    return Part(note=f"[{kind} {mime}, {size(len(raw))}]", data=raw, name=name or f"{number:02}{suffix}")


def _free(directory: Path, name: str) -> Path:
    """A name that is not taken; nothing is overwritten."""
    path = directory / name
    count = 1
    while path.exists():
        count += 1
        path = directory / f"{Path(name).stem}-{count}{Path(name).suffix}"
    return path
