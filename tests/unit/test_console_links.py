"""A page of the console that links to another only where that may be seen names one that is there."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable

import pytest

from orchestrator.console.pages import PAGES

TEMPLATES = sorted(
    (one for one in files("orchestrator.console").joinpath("templates").iterdir() if one.name.endswith(".html")),
    key=lambda one: one.name,
)
CONDITION = re.compile(r"""["'](/[\w/-]*)["'] in known""")
LINK = re.compile(r"""["']/console(/[\w-]+)[^"']*["'] if""")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: one.name)
def test_a_link_is_to_a_page_that_is_there(template: Traversable) -> None:
    """A misspelt path is no error: the link is silently never drawn."""
    text = template.read_text("utf-8")
    known = {page.path for page in PAGES}
    assert set(CONDITION.findall(text)) <= known
    assert set(LINK.findall(text)) <= known
