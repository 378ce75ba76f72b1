"""Fixtures of the tests of targets."""

from tests.consumers.harness import consume

__all__ = ["consume"]
