"""What can go wrong with a project's files, each with what to do about it.

Owns the classes and the reading of git's own words. `Retryable` may succeed later without anybody's doing;
`Permanent` needs a person, and says which one. Refuses to show a password.
"""

from __future__ import annotations

import re

from tasks.errors import FleetError, InvalidCall, Permanent, Retryable

SAID_CHARS = 400
"""Of git's own words, in a message."""


class GitFailed(Retryable):
    """Git ended with an error that nobody here knows."""

    code = "git_failed"

    def __init__(self, what: str, status: int, said: str, out: str = "") -> None:
        super().__init__(f"git {what} ended with {status}: {said[-SAID_CHARS:].strip() or 'nothing said'}")
        self.what, self.status, self.said, self.out = what, status, said, out


class GitTooSlow(Retryable):
    """Git took longer than it may; it was ended."""

    code = "git_too_slow"

    def __init__(self, what: str, limit_s: float) -> None:
        super().__init__(f"git {what} was ended after {limit_s:g} s; it is tried again, or raise the limit")
        self.what, self.limit_s = what, limit_s


class RemoteUnreachable(Retryable):
    """Nobody answers where the repository should be."""

    code = "remote_unreachable"

    def __init__(self, remote: str, said: str) -> None:
        super().__init__(f"the repository {remote} cannot be reached from this node: {_last(said)}")


class MirrorBusy(Retryable):
    """Another process has been fetching for too long."""

    code = "mirror_busy"

    def __init__(self, project: str, waited_s: float) -> None:
        super().__init__(f"the mirror of project {project} was busy for {waited_s:g} s; it is tried again")


class DiskFull(Retryable):
    """The node has no room for a workspace now."""

    code = "workspaces_full"

    def __init__(self, detail: str) -> None:
        super().__init__(f"no room for a workspace on this node: {detail}; free some, or raise the limit")


class RepositoryMissing(Permanent):
    """There is no repository at that address."""

    code = "repository_missing"

    def __init__(self, remote: str, said: str) -> None:
        super().__init__(f"there is no repository at {remote} ({_last(said)}); correct the project's remote")


class RemoteNeedsPassword(Permanent):
    """The remote lets nobody in without a credential, and nobody is asked for one here."""

    code = "remote_needs_password"

    def __init__(self, remote: str, said: str) -> None:
        super().__init__(
            f"the repository {remote} does not let this node in ({_last(said)}): "
            "give the node's user an ssh key that may read it, or name a remote with a token that is valid; "
            "many servers answer so too where there is no such repository"
        )


class HostUnknown(Permanent):
    """The ssh key of the remote's host is not known to this node."""

    code = "remote_host_unknown"

    def __init__(self, remote: str) -> None:
        super().__init__(f"the host of {remote} is not in this node's ssh known_hosts; check its key and add it there")


class RemoteRefused(Permanent):
    """The remote is not one that this node may read."""

    code = "remote_refused"

    def __init__(self, remote: str, said: str) -> None:
        super().__init__(
            f"git does not use the repository {remote} ({_last(said)}): "
            "give it to the node's user (chown), or name it by an ssh or https address"
        )


class InvalidRemote(InvalidCall):
    """An address in a form that is not allowed."""

    code = "invalid_remote"

    def __init__(self, remote: str, why: str) -> None:
        super().__init__(f"remote {remote[:120]!r}: {why}; use https://, ssh://, user@host:path, or an absolute path")


class InvalidRef(InvalidCall):
    """A name that git does not allow, or that could be read as an option."""

    code = "invalid_ref"

    def __init__(self, kind: str, name: str, why: str) -> None:
        super().__init__(f"{kind} {name[:120]!r} is not allowed: {why}")


class UnknownRef(Permanent):
    """The repository has no such branch, tag or commit."""

    code = "unknown_ref"

    def __init__(self, remote: str, ref: str | None) -> None:
        what = "no commit on its default branch; push one, or name a branch" if ref is None else f"no {ref!r}"
        super().__init__(
            f"the repository {remote} has {what}" + ("" if ref is None else ": name a branch, tag or commit")
        )


class RepositoryTooLarge(Permanent):
    """It is over what a node keeps of one project."""

    code = "repository_too_large"

    def __init__(self, remote: str, limit_bytes: int) -> None:
        super().__init__(f"the repository {remote} has more than {limit_bytes} bytes; raise the limit of a mirror")


class WorkspaceTooLarge(Permanent):
    """A run has written more than it may."""

    code = "workspace_too_large"

    def __init__(self, run: str, used_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"the workspace of run {run} has {used_bytes} bytes, the limit is {limit_bytes}: "
            "let the agent write less, or raise the limit"
        )


class PatchTooLarge(Permanent):
    """What a run changed is over the limit of a patch."""

    code = "patch_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"the patch has more than {limit_bytes} bytes: have the result pushed as a branch, "
            "or add what need not be kept to .gitignore"
        )


class OutsideWorkspace(Permanent):
    """A path that leads out of the run's files, or is no file."""

    code = "outside_workspace"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path[:200]!r} is not read: {why}; name a file of the workspace itself")


class ArtifactTooLarge(Permanent):
    """A file is over the limit."""

    code = "artifact_too_large"

    def __init__(self, path: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"{path[:200]!r} has {size_bytes} bytes, the limit is {limit_bytes}; name a smaller file")


class WorkspaceInUse(Permanent):
    """A run of this name has one already."""

    code = "workspace_in_use"

    def __init__(self, run: str) -> None:
        super().__init__(f"run {run!r} has a workspace on this node already; every run needs a name of its own")


class PushRefused(Permanent):
    """The remote did not take the branch."""

    code = "push_refused"

    def __init__(self, remote: str, branch: str, error: GitFailed) -> None:
        lines = [line.rpartition("\t")[2] for line in error.out.splitlines() if line.startswith("!")]
        lines += [line.strip() for line in error.said.splitlines() if line.startswith("remote:")]
        super().__init__(
            f"{remote} did not take the branch {branch!r} ({'; '.join(lines)[:SAID_CHARS] or _last(error.said)}): "
            "choose another name, or let this node's credential write there"
        )


_AUTH = re.compile(
    r"could not read (Username|Password)|Authentication failed|terminal prompts disabled|Permission denied \("
    r"|requested URL returned error: 40[137]|Too many authentication failures|Invalid username or|Permission denied, "
)
_HOST = re.compile(r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|No \S+ host key is known")
_OWNER = re.compile(r"dubious ownership|unsafe repository")
_MISSING = re.compile(
    r"does not appear to be a git repository|repository '.*' not found|Repository not found|not a git repository"
    r"|repository '.*' does not exist|requested URL returned error: 4(04|10)|not valid: is this a git repository"
)
_AWAY = re.compile(
    r"Could not resolve|Connection (refused|reset|timed out|closed)|Failed to connect|Couldn't connect|unable to access"
    r"|Network is unreachable|No route to host|early EOF|RPC failed|hung up unexpectedly|Could not read from remote"
    r"|Operation timed out|kex_exchange_identification|unable to connect|unexpected disconnect|requested URL returned"
)
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_PROTOCOL = re.compile(r"transport '.*' not allowed|Unable to find remote helper")


def explain(error: GitFailed, remote: str) -> FleetError:
    """What git's failure with a remote means; the error itself where nobody knows.

    The order is part of it: git adds "could not read from remote repository" to nearly everything.
    """
    said = error.said
    if _FULL.search(said):
        return DiskFull(_last(said))
    if _HOST.search(said):
        return HostUnknown(remote)
    if _AUTH.search(said):
        return RemoteNeedsPassword(remote, said)
    if _OWNER.search(said):
        return RemoteRefused(remote, said)
    if _MISSING.search(said):
        return RepositoryMissing(remote, said)
    if _PROTOCOL.search(said):
        return InvalidRemote(remote, "git does not speak this protocol here")
    return RemoteUnreachable(remote, said) if _AWAY.search(said) else error


def is_full(said: str) -> bool:
    """Git failed for want of room."""
    return _FULL.search(said) is not None


def _last(said: str) -> str:
    """The line that says most: the first of git's `fatal:` or `remote:` lines."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "ERROR:", "remote: ")) or "denied" in line]
    return (telling or lines or ["git said nothing"])[0][:SAID_CHARS]
