"""Where runs may go: what an operator may list, what that covers, and which addresses it opens."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tasks.errors import SettingsError
from worker.sidecars.sidecars_file import parse_projects
from worker.workspaces.destinations import Target, destination_of, target_of

PUBLIC = (
    "93.184.216.34",
    "2606:2800:220:1::1",
    "::ffff:93.184.216.34",
    "64:ff9b::5db8:d822",
    "2606:2800:220:1:0:5efe:5db8:d822",
)
ISATAP = "2606:2800:220:1:0:5efe:a00:5"
PRIVATE = (
    "127.0.0.1",
    "10.0.0.5",
    "172.16.3.4",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fd12::1",
    "::ffff:10.0.0.5",
    ISATAP,
)
NEVER = (
    "169.254.169.254",
    "169.254.1.1",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "224.0.0.1",
    "ff02::1",
    "0.0.0.0",
    "::",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "2001:db8::1",
    "2001:0:5ef5::1",
    "::7f00:1",
    "192.0.0.9",
    "192.0.0.10",
    "192.0.0.170",
    "192.88.99.1",
    "3fff::1",
    "5f00::1",
    "2606:2800:220:1:0:5efe:a9fe:a9fe",
    "2606:2800:220:1:200:5efe:a9fe:a9fe",
    "fe80::5efe:a9fe:a9fe",
    "fe80::5efe:5db8:d822",
    "fe80::5efe:a00:5",
)


@pytest.mark.parametrize(
    ("listed", "covered", "not_covered"),
    [
        (
            "packages.example.net",
            ["packages.example.net:443", "Packages.Example.NET.:443"],
            ["packages.example.net:8443"],
        ),
        ("Example.org:8443", ["example.org:8443"], ["example.org:443", "a.example.org:8443", "notexample.org:8443"]),
        ("*.example.org", ["a.example.org:443", "a.b.example.org:443"], ["example.org:443", "aexample.org:443"]),
        ("93.184.216.34", ["93.184.216.34:443"], ["93.184.216.35:443"]),
        ("[2606:2800:220:1::1]:8443", ["[2606:2800:0220:0001::1]:8443"], ["[2606:2800:220:1::2]:8443"]),
    ],
)
def test_a_listing_covers_its_names_and_its_port(listed: str, covered: list[str], not_covered: list[str]) -> None:
    """In any case of letters, with or without the last dot; a star is for names below, at any depth."""
    made = destination_of(listed)
    assert [text for text in covered if not made.covers(target_of(text))] == []
    assert [text for text in not_covered if made.covers(target_of(text))] == []


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("", "is no host"),
        ("https://example.org", "is no port"),
        ("example.org/path", "is no host"),
        ("exa mple.org", "is no host"),
        ("example.org:0", "is no port"),
        ("example.org:65536", "is no port"),
        ("example.org:٤٤٣", "is no port"),
        ("*", "is no host"),
        ("*.org", "too wide"),
        ("*.*.example.org", "is no host"),
        ("*.10.0.0.1", "too wide"),
        ("a.*.example.org", "is no host"),
        ("10.0.0.0/8", "is no host"),
        ("127.1", "is no host"),
        ("0x7f.0x1", "is no host"),
        ("2130706433", "is no host"),
        ("fe80::1%eth0", "is no"),
        ("münchen.example", "is no host"),
        ("localhost:8443", "own loopback"),
        ("shop.localhost", "own loopback"),
        ("127.0.0.1:8443", "own loopback"),
        ("[::ffff:127.0.0.1]:8443", "own loopback"),
        ("10.0.0.5", "no public address"),
        ("169.254.169.254", "no public address"),
    ],
)
def test_what_is_listed_wrongly_is_said_in_words(listed: str, words: str) -> None:
    """At the start of the node, not when an agent runs."""
    with pytest.raises(ValueError, match=words):
        destination_of(listed)


def test_only_public_addresses_are_opened_unless_an_operator_says_private() -> None:
    """Whatever form an address is written in; link-local ones and metadata services stay closed to everybody."""
    public, private = destination_of("example.org"), destination_of("example.org", is_private=True)
    assert [text for text in PUBLIC if not public.opens(ip_address(text))] == []
    assert [text for text in PRIVATE + NEVER if public.opens(ip_address(text))] == []
    assert [text for text in PUBLIC + PRIVATE if not private.opens(ip_address(text))] == []
    assert [text for text in NEVER if private.opens(ip_address(text))] == []


def test_a_listed_address_must_be_one_that_can_be_opened() -> None:
    """A mistake in the file is found when it is read."""
    assert destination_of("cache.test:8443", is_private=True, address="127.0.0.1").address == ip_address("127.0.0.1")
    for address, is_private in (("127.0.0.1", False), ("169.254.169.254", True), ("nonsense", True)):
        with pytest.raises(ValueError, match="address"):
            destination_of("cache.test", is_private=is_private, address=address)


def test_a_target_names_its_port() -> None:
    """There is none by default: what is asked for is exact."""
    assert str(target_of("[2001:DB8::1]:443")) == "[2001:db8::1]:443"
    assert target_of("A.example:1") == Target("a.example", 1)
    with pytest.raises(ValueError, match="names no port"):
        target_of("example.org")


def test_a_projects_lines_name_its_destinations() -> None:
    """Short where a name says it all, longer where an operator means the machine itself or a private network."""
    listed = ["a.example", {"host": "cache.test:4873", "private": True, "address": "127.0.0.1"}]
    projects = parse_projects({"shop": {"git": "/srv/shop.git", "destinations": listed}}, "f.json", ())
    first, second = projects["shop"].destinations
    assert (str(first), first.is_private, first.address) == ("a.example:443", False, None)
    assert (str(second), second.is_private, second.address) == ("cache.test:4873", True, ip_address("127.0.0.1"))


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (["10.0.0.0/8"], "destinations.0: Value error, '10.0.0.0/8' is no host"),
        (["a.example", {"host": "b.example", "privat": True}], "destinations.1.privat: Extra inputs"),
        ([{"private": True}], "destinations.0.host: Field required"),
        ([7], "destinations.0: Input should be"),
        ("a.example", "destinations: Input should be"),
    ],
)
def test_a_wrong_line_stops_the_start_with_its_place(listed: object, words: str) -> None:
    """Which project, which entry, and what to write in its place."""
    with pytest.raises(SettingsError, match=f"f.json: shop: {words}"):
        parse_projects({"shop": {"git": "/srv/shop.git", "destinations": listed}}, "f.json", ())
