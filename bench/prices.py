"""The monthly cost of a stack on AWS, from measured figures and list prices, without free tiers and taxes.

The prices are those of us-east-1 in 2026: https://aws.amazon.com/pricing/
"""

from dataclasses import dataclass

MONTH_SECONDS = 30 * 86_400
MEMORY_GB = 0.5
FUNCTIONS = 4
WORKERS = 10  # MaximumConcurrency, raised as docs/operate.md says where 5 do not keep up
BATCH_SIZE = 10

# US dollars
LAMBDA_REQUEST = 0.20e-6
LAMBDA_GB_SECOND = 1.33334e-5  # arm64
SNAPSTART_CACHED_GB_SECOND = 1.5046e-6
GATEWAY_REQUEST, GATEWAY_REQUEST_ABOVE, GATEWAY_STEP = 1.00e-6, 0.90e-6, 300e6
SQS_REQUEST = 0.40e-6
SCHEDULE = 1.00e-6
LOG_BYTE = 0.50e-9
TRACE = 5e-6
ALARM_METRIC, METRIC, DASHBOARD, SECRET, KEY = 0.10, 0.30, 3.00, 0.40, 1.00  # a month

# Calls a month that do not depend on the traffic
EMPTY_POLLS = 648_000  # 5 pollers that wait 20 seconds each
SWEEPS, CLEANUPS = 43_200, 2_880
WAKEUPS = 3 * SWEEPS  # the sweeps at 15, 30 and 45 seconds of each minute
WAKEUP_REQUESTS = SWEEPS + 2 * WAKEUPS  # of SQS: one to send three; one to receive and one to delete each
AUTHORIZATIONS = 8_640  # one in 5 minutes
SECRET_READS = 0.05e-4 * FUNCTIONS * 8_640  # $0.05 for 10,000; each function once in 5 minutes


@dataclass(frozen=True)
class Line:
    """A figure that grows linearly from a batch of one message to a batch of BATCH_SIZE."""

    one: float
    full: float

    def at(self, batch: float) -> float:
        """The figure for a batch of this many messages."""
        return self.one + (self.full - self.one) * (batch - 1) / (BATCH_SIZE - 1)


@dataclass(frozen=True)
class Measured:
    """Measured figures of the functions, and the number of priced resources in the template."""

    send_seconds: Line  # of an invocation
    send_log_bytes: Line  # of an invocation
    request_log_bytes: float  # of the HTTP API, for each message
    idle_seconds: float  # of a sweep or a cleanup that finds nothing
    idle_log_bytes: float
    receipt_seconds: float  # of a cleanup, for each receipt
    metrics: int
    alarm_metrics: int  # metrics that alarms watch; AWS charges per metric, not per alarm
    dashboards: int
    secrets: int
    keys: int  # of KMS


@dataclass(frozen=True)
class Item:
    """One item of the cost in dollars a month, and its formula."""

    name: str
    formula: str
    dollars: float


def batch_at(rate: float, measured: Measured) -> float:
    """Messages in a batch at a rate per second: those that arrive while all workers are busy, 1 to BATCH_SIZE."""
    batch = 1.0
    for _ in range(50):  # iterates to the fixed point, because a longer batch takes longer
        batch = min(max(rate * measured.send_seconds.at(batch) / WORKERS, 1), BATCH_SIZE)
    return batch


def monthly_cost(rate: float, measured: Measured) -> list[Item]:
    """The cost of a month by item, at `rate` messages a second, each to one device."""
    messages = rate * MONTH_SECONDS
    batch = batch_at(rate, measured)
    sends = messages / batch
    per_second = sends / MONTH_SECONDS
    traces = (min(per_second, 1) + 0.05 * max(per_second - 1, 0)) * MONTH_SECONDS
    idle_runs = SWEEPS + CLEANUPS + AUTHORIZATIONS
    logged = (
        messages * measured.request_log_bytes
        + sends * measured.send_log_bytes.at(batch)
        + (SWEEPS + CLEANUPS) * measured.idle_log_bytes
    )
    return [
        Item(
            "HTTP API",
            "N * $1.00/M, above 300 M $0.90/M",
            min(messages, GATEWAY_STEP) * GATEWAY_REQUEST + max(messages - GATEWAY_STEP, 0) * GATEWAY_REQUEST_ABOVE,
        ),
        Item("SQS", "(N + 2 N/B + empty polls) * $0.40/M", (messages + 2 * sends + EMPTY_POLLS) * SQS_REQUEST),
        Item("Lambda, sends", "N/B * (r + g * d)", _lambda(sends, measured.send_seconds.at(batch))),
        Item("Lambda, receipts", "N * g * d", messages * LAMBDA_GB_SECOND * MEMORY_GB * measured.receipt_seconds),
        Item(
            "Lambda, schedules, authorizer",
            "runs * (r + g * d + $1.00/M)",
            _lambda(idle_runs, measured.idle_seconds) + (SWEEPS + CLEANUPS) * SCHEDULE,
        ),
        Item("wake-ups", "runs * (r + g * d + logs + $5/M) + requests * $0.40/M", wakeups_cost(measured)),
        Item("logs", "bytes * $0.50/GB", logged * LOG_BYTE),
        Item("X-Ray", "(1 a second + 5 % of the rest) * $5/M", traces * TRACE),
        Item(
            "SnapStart cache",
            "4 versions * 0.5 GB * month * $1.5046/M GB-s",
            FUNCTIONS * MEMORY_GB * MONTH_SECONDS * SNAPSTART_CACHED_GB_SECOND,
        ),
        Item("custom metrics", f"{measured.metrics} * $0.30", measured.metrics * METRIC),
        Item(
            "alarms, dashboard",
            f"{measured.alarm_metrics} metrics * $0.10 + {measured.dashboards} * $3",
            measured.alarm_metrics * ALARM_METRIC + measured.dashboards * DASHBOARD,
        ),
        Item("KMS", f"{measured.keys} * $1", measured.keys * KEY),
        Item(
            "secrets",
            f"{measured.secrets} * $0.40 + reads * $5/M",
            measured.secrets * SECRET + SECRET_READS,
        ),
    ]


def wakeups_cost(measured: Measured) -> float:
    """The cost of a month's wake-ups when nothing is due, in dollars. Each may be recorded as a trace."""
    return (
        _lambda(WAKEUPS, measured.idle_seconds)
        + WAKEUP_REQUESTS * SQS_REQUEST
        + WAKEUPS * (measured.idle_log_bytes * LOG_BYTE + TRACE)
    )


def _lambda(calls: float, seconds: float) -> float:
    return calls * (LAMBDA_REQUEST + LAMBDA_GB_SECOND * MEMORY_GB * seconds)
