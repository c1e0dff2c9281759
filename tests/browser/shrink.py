"""Pictures of pages as small files: 128 colours are enough for text on plain grounds.

python -m tests.browser.shrink FROM TO
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

COLOURS = 128
BYTES_MAX = 150 * 1024


def shrink(source: Path, target: Path) -> int:
    """Write one picture; its size in bytes."""
    with Image.open(source) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    return target.stat().st_size


def main() -> int:
    """Every picture of a folder."""
    source, target = map(Path, sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    sizes = {path.name: shrink(path, target / path.name) for path in sorted(source.glob("*.png"))}
    for name, size in sizes.items():
        sys.stdout.write(f"{name}: {size // 1024} KiB\n")
    return int(any(size > BYTES_MAX for size in sizes.values()))


if __name__ == "__main__":
    sys.exit(main())
