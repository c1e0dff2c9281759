"""How a servers file names secrets, and where it may.

    "env":     {"TOKEN": "secret_ref:shop:github", "URL": "postgres://app:${secret_ref:shop:db}@db/app"}
    "headers": {"Authorization": "Bearer ${secret_ref:shop:web}"}
    "args":    ["--credentials", "${secret_file:shop:service-account}"]

`secret_file` becomes the path of a file that has it. Refuses a value in an argument list, which every user of the
machine can read, and in a URL, which servers log.
"""

from __future__ import annotations

import re

from tasks.secretref import PREFIX, NotARef, SecretRef, parse_ref

REF = re.compile(r"\$\{(secret_ref|secret_file):([^}]*)\}")


def refs_in(text: str) -> tuple[SecretRef, ...]:
    """The secrets that this text names, in either form, or as a whole. Raises NotARef."""
    if text.startswith(PREFIX):
        return (parse_ref(text),)
    return tuple(parse_ref(PREFIX + found[2]) for found in REF.finditer(text))


def why_not_here(text: str, *, can_be_file: bool) -> str | None:
    """Why a text that every user of the machine may see cannot have what it names; None where it can."""
    try:
        refs_in(text)
    except NotARef as error:
        return str(error)
    shown = text.startswith(PREFIX) or any(found[1] == "secret_ref" for found in REF.finditer(text))
    if not shown and (can_be_file or not REF.search(text)):
        return None
    instead = ", or write ${secret_file:OWNER:NAME} for the path of a file that has it" if can_be_file else ""
    return f"a secret must not stand here, where other users and logs see it; put it into env or headers{instead}"
