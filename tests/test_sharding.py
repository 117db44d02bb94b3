"""Bounds of a batch, or of the rows of one example, on many devices and in two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import check, free_port, started

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("sharded.py")


def test_eight_devices_share_the_work() -> None:
    check([started(PROGRAM)])


def test_two_processes_share_the_work() -> None:
    address = f"127.0.0.1:{free_port()}"
    check([started(PROGRAM, address, str(number)) for number in range(2)])
