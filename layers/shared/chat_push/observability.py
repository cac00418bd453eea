"""The one logger and the one set of metrics of a function.

Service name, namespace and log level come from the POWERTOOLS_ variables of the template. Message texts, push tokens,
JWTs and keys are never passed to either.
"""

import warnings

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

# A sweep that finds nothing due is no reason to warn.
warnings.filterwarnings("ignore", "No application metrics to publish", UserWarning)

# One text for both workers: it names what each code is mended with.
CONFIGURATION_FAULT = (
    "Expo, APNs or FCM refuse the project. InvalidCredentials: upload its push credentials (eas credentials). "
    "MismatchSenderId: google-services.json and the FCM key are of different Firebase projects. "
    "401, 403, invalid_token: set expo_access_token in BackendSecret to one that may send pushes. 404: correct ExpoUrl."
)

logger = Logger()
metrics = Metrics()


def count(name: str, value: float = 1, unit: MetricUnit = MetricUnit.Count) -> None:
    """Adds to a metric of this invocation; zero is not worth a metric."""
    if value:
        metrics.add_metric(name=name, unit=unit, value=value)
