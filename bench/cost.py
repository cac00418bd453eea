"""US dollars per million messages, from list prices and measured durations.

The functions run warm in the local cloud. 100 ms are added to each request to Expo, and 10 ms to each of the two
requests to the database. Durations and bytes are those of Lambda's REPORT lines and of all log lines. Each message has
a conversation of its own, and goes to one device. N: messages a month; B: messages in a batch, which are those that
arrive while ten workers are busy; r: $0.20/M requests; g: $13.3334/M GB-s * 0.5 GB; d: seconds. There is no free tier.
At low rates the fixed part dominates (SnapStart's cache, metrics), at high rates the HTTP API and logs.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from uuid import UUID

import psycopg

from bench.prices import BATCH_SIZE, MONTH_SECONDS, Line, Measured, batch_at, monthly_cost, wakeups_cost
from bench.report import Cell, Plot, Result, Target, shown
from local.app import chat_app, new_phone
from local.aws.lambda_runtime import LambdaFunction
from local.cloud import LocalCloud, local_cloud
from local.types import Json

RATES = (0.1, 10, 500)
ROUNDS = 20
EXPO_SECONDS, DATABASE_SECONDS = 0.1, 0.01
# The length of a line of the HTTP API's access log, by its format in the template with typical values.
REQUEST_LOG_BYTES = 400
TEMPLATE = Path(__file__).parent.parent / "template.yaml"


async def run() -> Result:
    """The cost per million messages by item, at each of RATES."""
    measured = await _measure()
    costs = [monthly_cost(rate, measured) for rate in RATES]
    millions = [rate * MONTH_SECONDS / 1e6 for rate in RATES]
    rows: list[tuple[Cell, ...]] = [
        (items[0].name, items[0].formula, *(item.dollars / of for item, of in zip(items, millions, strict=True)))
        for items in zip(*costs, strict=True)
    ]
    totals = [sum(item.dollars for item in items) for items in costs]
    rows.append(("total", "", *(total / of for total, of in zip(totals, millions, strict=True))))
    rates = tuple(f"$/M at {rate:g}/s" for rate in RATES)
    months = ", ".join(f"${shown(total)} at {rate:g}/s" for total, rate in zip(totals, RATES, strict=True))
    batches = ", ".join(f"{batch_at(rate, measured):.1f} at {rate:g}/s" for rate in RATES)
    return Result(
        columns=("item", "formula", *rates),
        rows=rows,
        targets=[Target("dollars a month for wake-ups when idle", wakeups_cost(measured), 1)],
        plot=Plot("item", rates, "US dollars per million messages", log=True),
        notes=(
            f"A month costs {months}.",
            f"B is {batches}.",
            f"d of a send is {shown(measured.send_seconds.one)} s for one message and "
            f"{shown(measured.send_seconds.full)} s for {BATCH_SIZE}; of a sweep that finds nothing "
            f"{shown(measured.idle_seconds)} s; of a receipt {shown(measured.receipt_seconds)} s.",
            f"Logs of a send are {shown(measured.send_log_bytes.one)} bytes for one message and "
            f"{shown(measured.send_log_bytes.full)} for {BATCH_SIZE}; of a sweep {shown(measured.idle_log_bytes)}.",
        ),
    )


async def _measure() -> Measured:
    async with local_cloud() as cloud, chat_app(cloud.supabase, cloud.api_url) as app:
        cloud.expo.configure({"latency_seconds": EXPO_SECONDS})
        tourist = await app.sign_up("Tina", "tourist")
        guides = [await app.sign_up(f"Gus{number}", "guide") for number in range(BATCH_SIZE)]
        for guide in guides:
            await guide.log_in_on(new_phone(cloud.expo, "ios"), "phone")
        rooms = [await tourist.open_chat(guide) for guide in guides]
        send, cleanup = cloud.functions["SendChatPush"], cloud.functions["CleanupReceipts"]
        await send.invoke({"sweep": True})
        await cleanup.invoke({})

        async def sent(batch: int) -> Invocation:
            return await _invoked(send, {"message_ids": await _write(cloud, rooms[:batch], tourist.id)})

        one = _mean([await sent(1) for _ in range(ROUNDS)])
        full = _mean([await sent(BATCH_SIZE) for _ in range(ROUNDS)])
        swept = _mean([await _invoked(send, {"sweep": True}) for _ in range(ROUNDS)])
        idle = _mean([await _invoked(cleanup, {}) for _ in range(ROUNDS)])
        receipts = await _make_due(cloud)
        cleaned = await _invoked(cleanup, {})
        metrics = _metrics(send) | _metrics(cleanup)
    template = TEMPLATE.read_text()
    network = 2 * DATABASE_SECONDS
    return Measured(
        send_seconds=Line(one.seconds + network, full.seconds + network),
        send_log_bytes=Line(one.log_bytes, full.log_bytes),
        request_log_bytes=REQUEST_LOG_BYTES,
        idle_seconds=swept.seconds + network,
        idle_log_bytes=swept.log_bytes,
        receipt_seconds=max(cleaned.seconds - idle.seconds, 0) / receipts,
        metrics=len(metrics),
        # Each alarm names its metric, or the metrics of its expression.
        alarm_metrics=template.count("MetricName: "),
        dashboards=template.count("Type: AWS::CloudWatch::Dashboard"),
        secrets=template.count("Type: AWS::SecretsManager::Secret"),
        keys=template.count("Type: AWS::KMS::Key"),
    )


@dataclass(frozen=True)
class Invocation:
    """The duration of an invocation by Lambda's REPORT line, and the bytes of its log lines."""

    seconds: float
    log_bytes: float


async def _invoked(function: LambdaFunction, event: Json) -> Invocation:
    before = len(function.log_lines())
    await function.invoke(event)
    lines = function.log_lines()[before:]
    [milliseconds] = re.findall(r"\tDuration: ([0-9.]+) ms", "\n".join(lines))
    return Invocation(float(milliseconds) / 1000, sum(len(line.encode()) + 1 for line in lines))


def _mean(invocations: list[Invocation]) -> Invocation:
    return Invocation(fmean(one.seconds for one in invocations), fmean(one.log_bytes for one in invocations))


def _metrics(function: LambdaFunction) -> set[tuple[str, ...]]:
    """All metrics in a function's log: the name, and the values of its dimensions. AWS bills each of them."""
    metrics = set()
    for line in function.log_lines():
        if '"_aws"' in line:
            published = json.loads(line)
            [described] = published["_aws"]["CloudWatchMetrics"]
            [dimensions] = described["Dimensions"]
            values = [published[dimension] for dimension in dimensions]
            metrics |= {(metric["Name"], *values) for metric in described["Metrics"]}
    return metrics


async def _write(cloud: LocalCloud, rooms: list[UUID], sender: UUID) -> list[str]:
    """Inserts a message into each conversation without calling the webhook, and returns their ids."""
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        await connection.execute("alter table public.chat_messages disable trigger notify_webhook")
        found = await connection.execute(
            "insert into public.chat_messages (room_id, sender_id, message)"
            " select room, %s, 'Where shall we meet tomorrow?' from unnest(%s::uuid[]) room returning id::text",
            (sender, rooms),
        )
        return [message_id for [message_id] in await found.fetchall()]


async def _make_due(cloud: LocalCloud) -> int:
    """Makes all receipts due now, and returns their number."""
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        waiting = await connection.execute(
            "update push.deliveries set receipt_due_at = now() where receipt_due_at is not null"
        )
        return waiting.rowcount
