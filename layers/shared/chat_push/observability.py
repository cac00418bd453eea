"""The one logger and the one set of metrics of a function.

Service name, namespace and log level come from the POWERTOOLS_ variables of the template. Message texts, push tokens,
JWTs and keys are never passed to either.
"""

import warnings

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

# A sweep that finds nothing due is no reason to warn.
warnings.filterwarnings("ignore", "No application metrics to publish", UserWarning)

logger = Logger()
metrics = Metrics()


def count(name: str, value: float = 1, unit: MetricUnit = MetricUnit.Count) -> None:
    """Adds to a metric of this invocation; zero is not worth a metric."""
    if value:
        metrics.add_metric(name=name, unit=unit, value=value)
