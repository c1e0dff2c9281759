"""What a page of the console is: a path, a template, what it shows, and what may be done there.

A new page is one file in `views/` with a `Page`, one template, and one line in `pages.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.console.inside import Inside
from tasks.identity_wire import WhoAmIView
from tasks.scopes import Scope


@dataclass(frozen=True, slots=True)
class Visit:
    """One person's request for one page."""

    api: Inside
    """The fleet, as this person may see and steer it. What it raises the frame turns into a page."""
    me: WhoAmIView
    now_s: float
    """Seconds since the epoch."""
    path: Mapping[str, str] = field(default_factory=dict)
    """What the page's path names in braces."""
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    """Of an act that was confirmed."""
    is_part: bool = False
    """Only what changes is fetched again: what a page has marked `data-still` is there already."""

    def may(self, scope: Scope) -> bool:
        """Whether the API would let this person. It decides anyway: this is for what is not to be offered."""
        return scope in self.me.scopes

    def said(self, name: str) -> str:
        """A word of the query; empty without it."""
        values = self.query.get(name, ())
        return values[-1].strip() if values else ""

    def all_said(self, name: str) -> list[str]:
        """Every such word of the query."""
        return [value for value in self.query.get(name, ()) if value]


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked before something is done.

    Attributes:
        title: what is about to be done, to what.
        sentences: what follows from it.
        button: the verb.
        back: the path where they came from, below /console.
        is_grave: it cannot be taken back.
        fields: name, label and length limit of what they may write.
    """

    title: str
    sentences: Sequence[str]
    button: str
    back: str
    is_grave: bool = False
    fields: Sequence[tuple[str, str, int]] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """What became of it: a sentence, and the path of the next page, below /console."""

    sentence: str
    to: str


@dataclass(frozen=True, slots=True)
class Act:
    """Something that may be done: GET of its path asks, POST does it.

    Attributes:
        path: below /console, with names in braces.
        scope: who has not got it is not asked.
        ask: what to ask; may read the fleet.
        do: carries it out through the API.
    """

    path: str
    scope: Scope
    ask: Callable[[Visit], Awaitable[Question]]
    do: Callable[[Visit], Awaitable[Done]]


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Attributes:
        path: below /console, with names in braces.
        title: in the window's title, and in the navigation.
        template: in `templates/`; extends `layout.html`, its block `live` is what is fetched again.
        load: what the template is given, besides `visit`.
        scope: who has not got it does not see the page in the navigation; None: everybody.
        group: heading in the navigation; empty: the page is not in it.
        acts: what may be done there.
        is_live: it is fetched again while something happens.
        feed: the path of the API's event stream that says when, from the path's names; None: everything that happens.
        relays: a script of the page reads that stream itself, at the page's path and `/events`.
    """

    path: str
    title: str
    template: str
    load: Callable[[Visit], Awaitable[Mapping[str, Any]]]
    scope: Scope | None = None
    group: str = ""
    acts: Sequence[Act] = ()
    is_live: bool = True
    feed: str | None = None
    relays: bool = False
