"""The logger and the metrics of a function.

The template's POWERTOOLS_ variables set service name, namespace and log level. Never pass a message text, a push token,
a JWT or a key to the logger or to a metric.
"""

import warnings
from collections.abc import Mapping
from typing import Literal

from aws_lambda_powertools import Logger, Metrics, single_metric
from aws_lambda_powertools.metrics import MetricUnit

from chat_push import __version__

# A sweep that finds nothing due counts nothing.
warnings.filterwarnings("ignore", "No application metrics to publish", UserWarning)

DEVICES_HELD = (
    "Expo reports so many dead tokens at once that no device was deactivated: read push.receipt_runs, then call "
    "push.review_held_deactivations(run_id, true or false)"
)

# All metrics, in the namespace ChatPush with the dimension `service`. They are counts, except those in UNITS.
type Metric = Literal[
    # send_chat_push
    "PushAccepted",
    "PushMaybeSent",
    "PushRetry",
    "PushDeferred",
    "InsertToAccept",
    "QueueAge",
    "LeaseExpired",
    "LeaseLost",
    "ResultUnrecorded",
    "UnknownMessage",
    "MalformedRecord",
    "SweepCompleted",
    # cleanup_receipts
    "ReceiptHandedOver",
    "ReceiptFailed",
    "ReceiptRetry",
    "ReceiptMissing",
    "ReceiptLost",
    "ReceiptConfigurationFault",
    "ReceiptsUnavailable",
    "PrunedPresenceOffline",
    "PrunedDevicesDeactivated",
    "PrunedDevicesDeleted",
    "PrunedDecisionsDeleted",
    "PrunedJobsDeleted",
    "CleanupCompleted",
    # both workers
    "ConfigurationFault",
    "DeviceDeactivated",
    "DeviceDeactivationHeld",
    # register_device
    "DeviceRegistered",
    "DeviceUnregistered",
    # authorize_webhook
    "WebhookRefused",
    # all functions
    "SecretKept",
    "SecretUnavailable",
]
UNITS: Mapping[Metric, MetricUnit] = {"InsertToAccept": MetricUnit.Milliseconds, "QueueAge": MetricUnit.Milliseconds}

# Counts with a second dimension. CloudWatch bills each value of it as a metric, so there must be few.
type MetricWithDimension = Literal[
    "PushFailed", "PushSkipped", "DirectAccepted", "DirectNotAccepted", "DirectConfigurationFault"
]
DIMENSIONS: Mapping[MetricWithDimension, str] = {
    "PushFailed": "code",
    "PushSkipped": "reason",
    # Of FCM and APNs. The rest of all pushes is of Expo, so a stack with Expo alone pays for none of these.
    "DirectAccepted": "provider",
    "DirectNotAccepted": "provider",
    "DirectConfigurationFault": "provider",
}

logger = Logger()
metrics = Metrics()


def count(name: Metric, value: float = 1) -> None:
    """Adds to a metric of this invocation. Zero adds nothing."""
    if value:
        record(name, value)


def record(name: Metric, value: float) -> None:
    """Adds a measured value, which may be zero, to a metric of this invocation."""
    metrics.add_metric(name=name, unit=UNITS.get(name, MetricUnit.Count), value=value)


def count_by(name: MetricWithDimension, values: Mapping[str, int]) -> None:
    """Publishes a count for each value of the metric's second dimension."""
    for value, number in values.items():
        with single_metric(name=name, unit=MetricUnit.Count, value=number) as metric:
            metric.add_dimension(DIMENSIONS[name], value)


def log_start() -> None:
    """Logs the version, once in each start of a function. With SnapStart, a function starts when it is deployed."""
    logger.info("started", version=__version__)
