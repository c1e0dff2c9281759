"""What a run reaches of the network: what its project lists, by real clients in a real sandbox, and nothing else."""

from __future__ import annotations

import asyncio
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.contract.reach_rig import NAME, WAIT_S, led, tls_server
from worker.sidecars.reach import ReachLimits
from worker.workspaces.destinations import Address, Destination, destination_of

pytestmark = pytest.mark.live("sandbox")

CURL = "curl -sS --cacert /opt/ca.pem"
PYTHON = """python3 -c "import ssl, sys, urllib.request as u
print(u.urlopen(sys.argv[1], context=ssl.create_default_context(cafile='/opt/ca.pem')).read().decode())" """


def _files(folder: Path) -> Path:
    """With a repository that can be cloned as it lies there."""
    served = folder / "served"
    source = folder / "source"
    for part in (served, source):
        part.mkdir()
    (served / "hello.txt").write_text("hello")
    (source / "total.py").write_text("total = 1\n")
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    for words in (
        ("init", "-q", "-b", "main"),
        ("add", "."),
        (*who, "commit", "-qm", "Begin"),
        ("clone", "-q", "--bare", ".", str(served / "shop.git")),
        ("--git-dir", str(served / "shop.git"), "update-server-info"),
    ):
        subprocess.run(["git", *words], cwd=source, env=environ, check=True, capture_output=True, timeout=30)
    return served


async def test_real_clients_reach_what_is_listed(tmp_path: Path) -> None:
    """curl, git and Python find their way by the variables alone, and what went each way is counted."""
    with tls_server(_files(tmp_path)) as server:
        async with led(tmp_path / "run", server.listed) as at:
            by_curl = await at.run(f"{CURL} {server.url}/hello.txt")
            by_git = await at.run(
                f"git -c http.sslCAInfo=/opt/ca.pem clone -q {server.url}/shop.git && cat shop/total.py"
            )
            by_python = await at.run(f"{PYTHON} {server.url}/hello.txt")
            told = at.reach.told()
    assert (by_curl, by_git, by_python.strip()) == ("hello", "total = 1\n", "hello")
    counted = told["reached"][f"{NAME}:{server.port}"]
    assert counted["tunnels"] >= 3
    assert min(counted["bytes_in"], counted["bytes_out"]) > 500
    assert "not_reached" not in told


async def test_what_is_not_listed_is_refused_with_words(tmp_path: Path) -> None:
    """Another name, another port, an address in place of the name, and plain http; the client says why."""
    with tls_server(_files(tmp_path)) as server:
        async with led(tmp_path / "run", server.listed) as at:
            other = await at.run(f"{CURL} -v https://example.org/")
            by_python = await at.run(f"{PYTHON} https://example.org/")
            port = await at.run(f"{CURL} https://{NAME}:1/")
            number = await at.run(f"{CURL} --noproxy '' https://127.0.0.1:{server.port}/hello.txt")
            plain = await at.run(f"{CURL} http://{NAME}:{server.port}/hello.txt")
            head = await at.run(f"{CURL} -I http://{NAME}:{server.port}/hello.txt")
            directly = await at.run(f"{CURL} --noproxy '*' --connect-timeout 5 https://192.0.2.1/")
            told = at.reach.told()
    assert "403 example.org:443 is not listed for project shop" in other
    assert "403 example.org:443 is not listed for project shop" in by_python
    assert "response 403" in port
    assert "response 403" in number
    assert "plain http is not passed on" in plain
    assert head.startswith("HTTP/1.1 403 ")
    assert "curl: (7)" in directly
    assert server.asked == []
    assert sorted(told["not_reached"]) == sorted(["example.org:443", f"{NAME}:1", f"127.0.0.1:{server.port}"])


async def test_the_body_of_a_refusal_says_what_to_do(tmp_path: Path) -> None:
    """Whoever reads it learns what is listed, and where."""
    async with led(tmp_path / "run", destination_of("*.example.org")) as at:
        reader, writer = await asyncio.open_unix_connection(str(at.socket))
        writer.write(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            said = (await reader.read()).decode()
        writer.close()
    assert said.startswith("HTTP/1.1 403 example.com:443 is not listed for project shop\r\n")
    assert "reach *.example.org:443;" in said
    assert "mcpfleet.projects.shop.destinations" in said


@pytest.mark.parametrize("found", ["127.0.0.1", "::ffff:127.0.0.1", "10.1.2.3", "169.254.169.254", "fd00:ec2::254"])
async def test_a_name_that_leads_to_a_closed_address_is_refused(tmp_path: Path, found: str) -> None:
    """Whoever owns the name says where it leads; the node is not led there. Nothing is connected to."""

    async def resolve(_host: str, _port: int) -> tuple[Address, ...]:
        return (ip_address(found),)

    with tls_server(_files(tmp_path)) as server:
        async with led(tmp_path / "run", destination_of(f"{NAME}:{server.port}"), resolve=resolve) as at:
            said = await at.run(f"{CURL} -v {server.url}/hello.txt")
    assert f"403 {NAME}:{server.port} leads to an address that is not public" in said
    assert server.asked == []


async def test_a_name_is_resolved_once_and_its_open_addresses_are_tried(tmp_path: Path) -> None:
    """What was judged is what is connected to: a name that means another address a moment later gains nothing."""
    answers: list[tuple[Address, ...]] = [
        (ip_address("169.254.169.254"), ip_address("::1"), ip_address("127.0.0.1")),
        (ip_address("169.254.169.254"),),
    ]

    async def resolve(_host: str, _port: int) -> tuple[Address, ...]:
        return answers.pop(0)

    with tls_server(_files(tmp_path)) as server:
        listed = destination_of(f"{NAME}:{server.port}", is_private=True)
        async with led(tmp_path / "run", listed, resolve=resolve) as at:
            first = await at.run(f"{CURL} {server.url}/hello.txt")
            second = await at.run(f"{CURL} -v {server.url}/hello.txt")
    assert first == "hello"
    assert "403" in second


class _Judged(Destination):
    """Whose every address is held for public, as the node's own on the network is."""

    def opens(self, address: Address) -> bool:
        return address.version in {4, 6}


async def test_a_name_that_leads_back_to_the_node_is_refused(tmp_path: Path) -> None:
    """Its public address is one of its own, and its services may trust it: not a byte is sent."""

    async def resolve(_host: str, _port: int) -> tuple[Address, ...]:
        return (ip_address("127.0.0.1"),)

    with tls_server(_files(tmp_path)) as server:
        async with led(tmp_path / "run", _Judged(NAME, server.port), resolve=resolve) as at:
            said = await at.run(f"{CURL} -v {server.url}/hello.txt")
    assert f"403 {NAME}:{server.port} leads to an address that is not public" in said
    assert server.asked == []


async def test_what_does_not_answer_is_told_apart(tmp_path: Path) -> None:
    """502 where nobody listens or no such name is; the client need not guess."""

    async def resolve(_host: str, _port: int) -> tuple[Address, ...]:
        raise OSError("no such name")

    with tls_server(_files(tmp_path)) as server:
        gone = server.listed
    async with led(tmp_path / "run", gone, destination_of("nowhere.test"), resolve=resolve) as at:
        nobody = await at.run(f"{CURL} -v https://{gone}/")
        no_name = await at.run(f"{CURL} -v https://nowhere.test/")
    assert f"502 {gone} does not answer" in nobody
    assert "502 nowhere.test:443 has no address" in no_name


async def test_one_projects_list_does_not_serve_the_other(tmp_path: Path) -> None:
    """Each run has a socket of its own, and sees no other."""
    with tls_server(_files(tmp_path)) as server:
        async with led(tmp_path / "one", server.listed) as one, led(tmp_path / "two", destination_of("a.test")) as two:
            mine, theirs = await asyncio.gather(
                one.run(f"{CURL} {server.url}/hello.txt"), two.run(f"{CURL} -v {server.url}/hello.txt")
            )
            seen = await two.run("ls -A /run/mcpfleet")
    assert mine == "hello"
    assert "is not listed for project shop" in theirs
    assert seen.split() == ["reach.sock"]


async def test_tunnels_die_with_the_run(tmp_path: Path) -> None:
    """Also where the program inside lives on and the other side says nothing."""
    with tls_server(_files(tmp_path)) as server:
        async with led(tmp_path / "run", server.listed) as at:
            process = await at.start(f"{CURL} {server.url}/hold; echo ended")
            try:
                assert await asyncio.to_thread(server.held.wait, WAIT_S)
                await at.reach.close()
                assert await asyncio.to_thread(server.left.wait, WAIT_S)
                async with asyncio.timeout(WAIT_S):
                    said = (await process.communicate())[0].decode()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    assert "ended" in said


async def test_a_run_has_so_many_tunnels_and_idle_ones_are_closed(tmp_path: Path) -> None:
    """One more is told so; what says nothing for too long makes room."""
    limits = ReachLimits(tunnels=1, idle_s=3.0)
    with tls_server(_files(tmp_path)) as server:
        async with led(tmp_path / "run", server.listed, limits=limits) as at:
            process = await at.start(f"{CURL} {server.url}/hold")
            try:
                assert await asyncio.to_thread(server.held.wait, WAIT_S)
                second = await at.run(f"{CURL} -v {server.url}/hello.txt")
                assert await asyncio.to_thread(server.left.wait, WAIT_S)
                third = await at.run(f"{CURL} {server.url}/hello.txt")
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()
    assert "503 this run has 1 connections already" in second
    assert third == "hello"


async def test_a_flood_of_connections_is_closed_and_not_kept(tmp_path: Path) -> None:
    """A few above the limit are told so; the others hold neither a descriptor nor a task of the node."""
    async with led(tmp_path / "run", destination_of("example.org"), limits=ReachLimits(tunnels=1)) as at:
        ends = [await asyncio.open_unix_connection(str(at.socket)) for _ in range(60)]
        async with asyncio.timeout(WAIT_S):
            said = await asyncio.gather(*(reader.read() for reader, _ in ends[1:]), return_exceptions=True)
        told = [each for each in said if isinstance(each, bytes) and each.startswith(b"HTTP/1.1 503 ")]
        for _, writer in ends:
            writer.close()
    assert told
    assert [each for each in said if isinstance(each, ConnectionError) or each == b""]


async def test_nonsense_ends_in_an_answer(tmp_path: Path) -> None:
    """What is no request of a proxy's client is told so, and holds up nobody."""
    asked = {
        b"\x16\x03\x01 what a TLS client says first\r\n\r\n": b"HTTP/1.1 400 ",
        b"CONNECT example.org HTTP/1.1\r\nHost: a\r\n\r\n": b"HTTP/1.1 400 ",
        b"CONNECT http://example.org:443 HTTP/1.1\r\nHost: a\r\n\r\n": b"HTTP/1.1 400 ",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000: b"HTTP/1.1 431 ",
        b"": b"",
    }
    async with led(tmp_path / "run", destination_of("example.org")) as at:
        for said, answer in asked.items():
            reader, writer = await asyncio.open_unix_connection(str(at.socket))
            writer.write(said)
            writer.write_eof()
            async with asyncio.timeout(WAIT_S):
                assert (await reader.read())[:13] == answer, said[:40]
            writer.close()
