"""Hosts of these tests hash passwords at the least cost; how long the real cost takes is tested with the hashes."""

import pytest

from kohakuriver.host.auth.passwords import Passwords


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Passwords.__init__, "__defaults__", (4, 64))
