"""What tests cost: compilations, which are the same everywhere, and seconds of processor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import jax
import pytest

_COMPILED = "/jax/core/compile/backend_compile_duration"
_SHOWN = 10

_compilations = 0


def _count(event: str, seconds: float, **details: Any) -> None:
    global _compilations
    _compilations += event == _COMPILED


jax.monitoring.register_event_duration_secs_listener(_count)


class Costs:
    """Adds up what every test costs, whichever process runs it, and says so in the end.

    Args:
        limit: of compilations of a whole run; None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.tests: dict[str, tuple[int, float]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        before = _compilations, time.process_time()
        item.user_properties.append(("costs", before))
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        if report.when == "teardown":
            (compiled, seconds) = dict(item.user_properties)["costs"]
            cost = _compilations - compiled, time.process_time() - seconds
            report.user_properties = [("costs", cost)]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self.tests[report.nodeid] = dict(report.user_properties)["costs"]

    @property
    def compilations(self) -> int:
        """Of all tests."""
        return sum(compiled for compiled, _ in self.tests.values())

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        seconds = sum(seconds for _, seconds in self.tests.values())
        terminalreporter.section("costs")
        write = terminalreporter.write_line
        write(f"{self.compilations} compilations, {seconds:.0f} s of processor; the dearest tests:")
        if self.limit is not None and self.compilations > self.limit:
            write(f"FAILED: more than {self.limit} compilations; tests/README.md says what to do")
        dearest = sorted(self.tests.items(), key=lambda x: -x[1][1])[:_SHOWN]
        for name, (compiled, seconds) in dearest:
            write(f"{seconds:6.1f} s  {compiled:5} compilations  {name}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.limit is not None and self.compilations > self.limit:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
