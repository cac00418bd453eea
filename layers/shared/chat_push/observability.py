"""The one logger and the one set of metrics of a function.

Service name, namespace and log level come from the POWERTOOLS_ variables of the template. Message texts, push tokens,
JWTs and keys are never passed to either.
"""

import warnings
from collections.abc import Mapping
from typing import Literal

from aws_lambda_powertools import Logger, Metrics, single_metric
from aws_lambda_powertools.metrics import MetricUnit

# A sweep that finds nothing due is no reason to warn.
warnings.filterwarnings("ignore", "No application metrics to publish", UserWarning)

# One text for both workers: it names what each code is mended with.
CONFIGURATION_FAULT = (
    "Expo, APNs or FCM refuse the project. InvalidCredentials: upload its push credentials (eas credentials). "
    "MismatchSenderId: google-services.json and the FCM key are of different Firebase projects. "
    "401, 403, invalid_token: set expo_access_token in BackendSecret to one that may send pushes. 404: correct ExpoUrl."
)

DEVICES_HELD = (
    "so many tokens are dead at once that none was switched off: look at push.receipt_runs, then call "
    "push.review_held_deactivations(run_id, true or false)"
)

# Every metric there is, in the namespace ChatPush with the dimension `service`: counts, but for those of UNITS.
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
    "PrunedJobsDeleted",
    "CleanupCompleted",
    # both of them
    "ConfigurationFault",
    "DeviceDeactivated",
    "DeviceDeactivationHeld",
    # register_device
    "DeviceRegistered",
    "DeviceUnregistered",
    # authorize_webhook
    "WebhookRefused",
    # all of them
    "SecretKept",
    "SecretUnavailable",
]
UNITS: Mapping[Metric, MetricUnit] = {"InsertToAccept": MetricUnit.Milliseconds, "QueueAge": MetricUnit.Milliseconds}

# Counts that have a second dimension. Each value of it is billed as a metric, so there may be only a few.
type MetricWithDimension = Literal["PushFailed", "PushSkipped"]
DIMENSIONS: Mapping[MetricWithDimension, str] = {"PushFailed": "code", "PushSkipped": "reason"}

logger = Logger()
metrics = Metrics()


def count(name: Metric, value: float = 1) -> None:
    """Adds to a metric of this invocation; zero is not worth a metric."""
    if value:
        record(name, value)


def record(name: Metric, value: float) -> None:
    """Adds a measured value, zero as well, to a metric of this invocation."""
    metrics.add_metric(name=name, unit=UNITS.get(name, MetricUnit.Count), value=value)


def count_by(name: MetricWithDimension, values: Mapping[str, int]) -> None:
    """Publishes a count for each value of the metric's second dimension."""
    for value, number in values.items():
        with single_metric(name=name, unit=MetricUnit.Count, value=number) as metric:
            metric.add_dimension(DIMENSIONS[name], value)
