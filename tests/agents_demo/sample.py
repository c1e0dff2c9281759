"""A small project with a failing test, and the repository that nodes clone it from. Made here, removed with it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

BRANCH = "main"
TESTS = ("python3", "-m", "unittest")
GIT_S = 60.0
CART = '''"""What a customer is about to buy."""

FREE_FROM = 50.0
SHIPPING = 4.9


def total(prices: list[float]) -> float:
    """Goods and shipping; shipping is free from 50 on."""
    goods = sum(prices)
    return goods if goods > FREE_FROM else goods + SHIPPING
'''
TEST = """import unittest

from cart import total


class Total(unittest.TestCase):
    def test_small_orders_pay_shipping(self):
        self.assertAlmostEqual(total([10.0]), 14.9)

    def test_shipping_is_free_from_fifty_on(self):
        self.assertAlmostEqual(total([20.0, 30.0]), 50.0)
"""


def make_remote(folder: Path) -> Path:
    """A bare repository with one commit, in which one of two tests fails."""
    work, remote = folder / "made", folder / "shop.git"
    work.mkdir()
    (work / ".gitignore").write_text("__pycache__/\n")
    (work / "cart.py").write_text(CART)
    (work / "test_cart.py").write_text(TEST)
    who = ("-c", "user.name=Demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false")
    git(work, "init", "--quiet", f"--initial-branch={BRANCH}")
    git(work, "add", ".")
    git(work, *who, "commit", "--quiet", "--no-verify", "-m", "Charge for shipping")
    git(folder, "clone", "--quiet", "--bare", str(work), str(remote))
    return remote


def git(folder: Path, *words: str, given: str | None = None) -> str:
    """What it prints. The user's own settings have no say in a throwaway repository.

    Raises:
        subprocess.CalledProcessError: git did not do it.
    """
    environ = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(folder)}
    environ |= {"PATH": os.environ["PATH"]}
    words = ("git", "-C", str(folder), *words)
    return subprocess.run(
        words, check=True, capture_output=True, text=True, timeout=GIT_S, env=environ, input=given
    ).stdout


def passes(folder: Path) -> bool:
    """Whether the project's tests pass there."""
    return subprocess.run(TESTS, check=False, cwd=folder, capture_output=True, timeout=GIT_S).returncode == 0
