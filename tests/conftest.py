"""Fixtures for all tests."""

from rehearsal_fixture import rehearsal_server

__all__ = ["rehearsal_server"]
