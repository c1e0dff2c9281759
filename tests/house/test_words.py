"""What code must not say: a print, a sleep, the environment, a word that means nothing."""

from __future__ import annotations

import ast
import re
from typing import Protocol

EMPTY_WORDS = re.compile(r"(manager|helper|util|utils|common|misc)s?(_|\.|$)", re.IGNORECASE)
MAY_PRINT = ("orchestrator/cli/", "worker/cli.py")
MAY_SLEEP = (
    "benchmarks/",  # pace a load by the clock: that is what they are for
    "orchestrator/cli/demo/",  # pauses for reading, on a terminal only
    "orchestrator/ledger/database.py",  # in a thread of its own, until SQLite is free or the limit is over
    "orchestrator/local/guard.py",  # a process of its own, whose whole life is this wait
    "tests/chaos/",  # tools and tasks that take their time, in processes of their own
    "tasks/client/",  # the blocking client blocks whoever calls it, as it says
)
MAY_READ_ENVIRONMENT = re.compile(r"(settings|bootstrap|cli|main|__main__)\.py$|/cli/|/local/|/testing/")


class Source(Protocol):
    """What these tests read of a file."""

    name: str
    text: str
    tree: ast.Module
    nodes: list[ast.AST]


def test_only_the_command_line_prints(ours: list[Source]) -> None:
    """Stdout belongs to MCP over stdio and to `--json`: a stray print breaks both."""
    assert not [call for call in _calls(ours, "print") if not call.startswith(MAY_PRINT)]


def test_nothing_sleeps_by_the_clock(sources: list[Source]) -> None:
    """`time.sleep` blocks a loop or makes a test wait for nothing: wait for a condition, with a limit."""
    assert not [nap for nap in _naps(sources, "time.sleep") if not nap.startswith(MAY_SLEEP)]


def test_tests_do_not_sleep(sources: list[Source]) -> None:
    """A test that sleeps is slow on a fast machine and wrong on a slow one: it waits for a condition, within bounds."""
    by_the_clock = (
        "tests/chaos/",  # a fault lasts for a while
        "tests/conformance/",  # the official suite wants tools that take their time
    )
    tests = [each for each in sources if each.name.startswith("tests/") and not each.name.startswith(by_the_clock)]
    assert not _naps(tests, "asyncio.sleep")


def test_the_environment_is_read_in_settings_only(ours: list[Source]) -> None:
    """Below settings, bootstrap and the command line nobody reads or writes `os.environ`."""
    readers = [
        f"{source.name}:{node.lineno}"
        for source in ours
        if not MAY_READ_ENVIRONMENT.search(source.name)
        for node in source.nodes
        if isinstance(node, ast.Attribute) and _dotted(node) in {"os.environ", "os.getenv", "os.putenv"}
    ]
    assert not readers


def test_names_mean_something(ours: list[Source]) -> None:
    """No manager, helper, util, common or misc, in file, class and function names."""
    files = [source.name for source in ours if EMPTY_WORDS.search(source.name.removesuffix(".py"))]
    names = [
        f"{source.name}:{node.lineno} {node.name}"
        for source in ours
        for node in source.nodes
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and EMPTY_WORDS.search(node.name)
    ]
    assert not files + names


def test_a_caught_everything_is_logged_or_raised(ours: list[Source]) -> None:
    """`except Exception` stands at the top of a loop or task body, and always logs the traceback or raises."""
    silent = [
        f"{source.name}:{handler.lineno}"
        for source in ours
        for handler in source.nodes
        if isinstance(handler, ast.ExceptHandler)
        and (handler.type is None or _dotted(handler.type) in {"Exception", "BaseException"})
        and not _speaks(handler)
    ]
    assert not silent


def test_a_todo_names_what_would_remove_it(sources: list[Source]) -> None:
    """A bare TODO is a wish; ours say what would have to be true."""
    bare = [
        f"{source.name}:{number}"
        for source in sources
        for number, line in enumerate(source.text.splitlines(), 1)
        if re.search(r"#\s*(TODO|FIXME|XXX)\b(?!.*\b(when|until|once|if)\b)", line)
    ]
    assert not bare


def _speaks(handler: ast.ExceptHandler) -> bool:
    """It raises, logs with the traceback, or hands the very exception to whoever answers for it."""
    for node in ast.walk(handler):
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Return | ast.Assign) and _names(node.value, handler.name):
            return True
        if isinstance(node, ast.Call) and _hands_on(node, handler.name):
            return True
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r") and _names(node.value, handler.name):
            return True  # shown whole, to whoever asked
    return False


def _hands_on(call: ast.Call, error: str | None) -> bool:
    if _dotted(call.func) in {"str", "type", "print"}:
        return False
    if isinstance(call.func, ast.Attribute) and call.func.attr == "exception":
        return True
    return any(keyword.arg == "exc_info" for keyword in call.keywords) or any(
        _names(argument, error) for argument in [*call.args, *(keyword.value for keyword in call.keywords)]
    )


def _names(value: ast.expr | None, error: str | None) -> bool:
    return isinstance(value, ast.Name) and error is not None and value.id == error


def _naps(sources: list[Source], name: str) -> list[str]:
    """Sleeps outside a loop that looks at a condition. `sleep(0)` only yields; a fake tool may take its time."""
    found = []
    for source in sources:
        naps = [node for node in source.nodes if isinstance(node, ast.Call) and _dotted(node.func) == name]
        if naps and _is_tested(source.name):
            loops = [node for node in source.nodes if isinstance(node, ast.While | ast.For | ast.AsyncFor)]
            polls = {id(inner) for loop in loops for inner in ast.walk(loop)}
            naps = [nap for nap in naps if id(nap) not in polls]
        found += [f"{source.name}:{nap.lineno}" for nap in naps if not _is_zero(nap)]
    return found


def _is_tested(name: str) -> bool:
    return name.startswith("tests/") or "/testing/" in name


def _is_zero(call: ast.Call) -> bool:
    return len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0


def _calls(sources: list[Source], name: str) -> list[str]:
    return [
        f"{source.name}:{node.lineno}"
        for source in sources
        for node in source.nodes
        if isinstance(node, ast.Call) and _dotted(node.func) == name
    ]


def _dotted(node: ast.expr | None) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return ""
