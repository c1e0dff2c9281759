"""The conformance gate: runs the official suite against the fixture and judges the results.

    python tests/conformance/run.py [--fleet real|inprocess] [--only NAME] [--write docs/conformance.md]

`make conformance` sets the suite up below .cache/conformance: Node.js from its PyPI wheel, the suite
from npm, both locked. Exit codes: 0 all scored checks and all of `tasks-*` passed; 1 some failed; 3 the
suite is not set up here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "conformance"
RUNS = {"active": ("--suite", "active"), "2026-07-28": ("--requirements", "2026-07-28")}
"""What is run: every scenario that is neither pending nor draft, and what the revision requires."""
STARTS_WITHIN_S, RUN_WITHIN_S, STOPS_WITHIN_S = 150, 900, 30
CANNOT = 3
_DIRECTORY = re.compile(r"server-(.+)-\d{4}-\d\d-\d\dT.*")
_UNSCORED = re.compile(r"^  [✓✗] (\S+) \((\S+)\)$", re.MULTILINE)
_MARKS = ("<!-- results: begin -->", "<!-- results: end -->")


@dataclass
class Scenario:
    """What one scenario of one run came to."""

    run: str
    name: str
    passed: int = 0
    failed: int = 0
    warned: int = 0
    skipped: int = 0
    unscored: str = ""
    """Why it does not count: `extension` or `pending`."""

    @property
    def is_gated(self) -> bool:
        """Scored by the revision, or ours to keep: the tasks extension."""
        return not self.unscored or self.name.startswith("tasks-")


def is_set_up() -> bool:
    """`make conformance` brought it."""
    return (CACHE / ".setup").exists() and (CACHE / "node_modules" / ".bin" / "conformance").exists()


def _with_node() -> dict[str, str]:
    return {**os.environ, "PATH": os.pathsep.join([str(CACHE / "venv" / "bin"), os.environ.get("PATH", "")])}


@contextlib.contextmanager
def fixture(kind: str, log: Path) -> Iterator[str]:
    """The fixture, serving; yields its URL."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "serve.py"), "--fleet", kind],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield _url(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOPS_WITHIN_S)


def _url(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    ends = signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(STARTS_WITHIN_S)
    try:
        line = process.stdout.readline().strip()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, ends)
    if not line:
        raise RuntimeError(f"the fixture did not start:\n{log.read_text()[-3000:]}")
    return line


def _too_late(*_: object) -> None:
    raise TimeoutError(f"the fixture did not start within {STARTS_WITHIN_S} s")


def run_suite(name: str, url: str, folder: Path) -> list[Scenario]:
    """One run of the suite."""
    words = [str(CACHE / "node_modules" / ".bin" / "conformance"), "server", "--url", url, *RUNS[name]]
    done = subprocess.run(
        [*words, "-o", str(folder)],
        env=_with_node(), cwd=CACHE, check=False, capture_output=True, text=True, timeout=RUN_WITHIN_S,
    )  # fmt: skip
    unscored = dict(_UNSCORED.findall(done.stdout))
    found = [_scenario(name, path, unscored) for path in sorted(folder.glob("server-*/checks.json"))]
    if not found or "=== SUMMARY ===" not in done.stdout:
        raise RuntimeError(f"the suite did not run:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return found


def _scenario(run: str, path: Path, unscored: dict[str, str]) -> Scenario:
    match = _DIRECTORY.fullmatch(path.parent.name)
    assert match is not None
    scenario = Scenario(run, match.group(1), unscored=unscored.get(match.group(1), ""))
    for check in json.loads(path.read_text()):
        match check["status"]:
            case "SUCCESS":
                scenario.passed += 1
            case "FAILURE":
                scenario.failed += 1
                sys.stderr.write(f"{run} {scenario.name}: {check['id']}: {check.get('errorMessage')}\n")
            case "WARNING":
                scenario.warned += 1
            case "SKIPPED":
                scenario.skipped += 1
    return scenario


def table(scenarios: list[Scenario]) -> str:
    """A Markdown table: one line per run, then one per scenario."""
    lines = ["| run | counts | scenarios | passed | failed | warned | skipped |", "|---|---|---|---|---|---|---|"]
    for run in RUNS:
        for label, why in (("scored", ""), ("tasks extension", "extension"), ("pending", "pending")):
            part = [each for each in scenarios if each.run == run and each.unscored == why]
            if part:
                sums = [sum(getattr(each, key) for each in part) for key in ("passed", "failed", "warned", "skipped")]
                lines.append(f"| {run} | {label} | {len(part)} | " + " | ".join(map(str, sums)) + " |")
    lines += ["", "| scenario | " + " | ".join(RUNS) + " |", "|---|" + "---|" * len(RUNS)]
    for name in dict.fromkeys(each.name for each in scenarios):
        cells = [next((_cell(each) for each in scenarios if (each.run, each.name) == (run, name)), "") for run in RUNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(scenario: Scenario) -> str:
    if not scenario.passed and not scenario.failed:
        return "skipped by the suite"
    return f"{scenario.passed}/{scenario.passed + scenario.failed}"


def write_page(page: Path, found: list[Scenario], command: str) -> None:
    """Put the table between the page's marks."""
    before, _, rest = page.read_text().partition(_MARKS[0])
    _, _, after = rest.partition(_MARKS[1])
    day = time.strftime("%Y-%m-%d", time.gmtime())
    page.write_text(f"{before}{_MARKS[0]}\nMeasured {day} by `{command}`.\n\n{table(found)}\n{_MARKS[1]}{after}")


def main() -> int:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--fleet", choices=("real", "inprocess"), default="real")
    options.add_argument("--only", choices=tuple(RUNS))
    options.add_argument("--write", type=Path)
    given = options.parse_args()
    if not is_set_up():
        sys.stderr.write("conformance: the suite is not set up here; `make conformance` does it\n")
        return CANNOT
    found: list[Scenario] = []
    with tempfile.TemporaryDirectory(prefix="mcpfleet-conformance-") as name, \
            fixture(given.fleet, Path(name) / "fixture.log") as url:  # fmt: skip
        for run in [given.only] if given.only else RUNS:
            found += run_suite(run, url, Path(name) / run)
    sys.stdout.write(table(found) + "\n")
    if given.write is not None:
        write_page(given.write, found, f"python tests/conformance/run.py --fleet {given.fleet}")
    failed = [f"{each.run}: {each.name}" for each in found if each.is_gated and each.failed]
    sys.stdout.write(f"\n{'FAILED: ' + ', '.join(failed) if failed else 'conformance: all gated checks passed'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
