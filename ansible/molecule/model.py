"""A model for agents on the machines: the double of the Messages API at an address that they reach.

`python model.py ADDRESS PORT PID_FILE` until it is ended. It knows one part: say hello to the world, in a file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import uvicorn

from worker.testing.messages_double import MessagesDouble, text, use

FILE = "/workspace/greeting.txt"
SCRIPT = (
    (use("Read", file_path=FILE),),
    (use("Edit", file_path=FILE, old_string="hello", new_string="hello, world"),),
    (text("It says hello to the world."),),
)


def main(address: str, port: int, pid_file: Path) -> None:
    """Serve."""
    pid_file.write_text(f"{os.getpid()}\n")
    uvicorn.run(MessagesDouble(SCRIPT).app, host=address, port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
