"""The monthly cost of the benchmark, compared with figures that were calculated by hand."""

from dataclasses import replace
from typing import Any

import pytest

from bench.prices import MONTH_SECONDS, Line, Measured, batch_at, monthly_cost

MEASURED = Measured(
    send_seconds=Line(0.3, 0.4),
    send_log_bytes=Line(1000, 2000),
    request_log_bytes=800,
    idle_seconds=0.2,
    idle_log_bytes=0,
    receipt_seconds=0.001,
    metrics=5,
    alarm_metrics=22,
    dashboards=1,
    secrets=3,
    keys=1,
)
A_MILLION_A_MONTH = 1e6 / MONTH_SECONDS


def items(rate: float) -> dict[str, Any]:
    """Dollars a month by item."""
    return {item.name: pytest.approx(item.dollars, rel=1e-3) for item in monthly_cost(rate, MEASURED)}


def test_each_item_of_a_million_messages_a_month_has_its_list_price() -> None:
    assert items(A_MILLION_A_MONTH) == {
        "HTTP API": 1.00,
        "SQS": 1.4592,
        "Lambda, sends": 2.2,
        "Lambda, receipts": 0.00667,
        "Lambda, schedules, authorizer": 0.13003,
        "wake-ups": 0.96768,
        "logs": 0.90,
        "X-Ray": 5.00,
        "SnapStart cache": 7.7998,
        "custom metrics": 1.50,
        "alarms, dashboard": 5.20,
        "KMS": 1.00,
        "secrets": 1.3728,
    }


def test_the_http_api_is_cheaper_above_300_million_requests() -> None:
    assert items(400e6 / MONTH_SECONDS)["HTTP API"] == 390


@pytest.mark.parametrize(("rate", "batch"), [(0.1, 1), (30, 1), (150, 5.2), (1000, 10)])
def test_a_batch_holds_the_messages_that_arrive_while_all_workers_are_busy(rate: float, batch: float) -> None:
    assert batch_at(rate, MEASURED) == pytest.approx(batch, rel=0.01)


def test_full_batches_cost_a_tenth_of_the_invocations() -> None:
    busy = replace(MEASURED, send_seconds=Line(0.3, 0.3))
    lambda_at = {rate: monthly_cost(rate, busy)[2].dollars / rate for rate in (1, 1000)}
    assert lambda_at[1] == pytest.approx(10 * lambda_at[1000])
