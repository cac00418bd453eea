"""Runs every 15 minutes: reads receipts, deactivates devices with dead tokens, deletes old rows."""

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from chat_push.backend import Settings, clients
from chat_push.cleanup import CleanupReport, clean_up
from chat_push.expo_errors import CONFIGURATION_FAULT
from chat_push.observability import DEVICES_HELD, Metric, count, log_start, logger, metrics
from chat_push.settings import read_settings

settings = read_settings(Settings)
log_start()

RECEIPTS: Mapping[str, Metric] = {
    "handed_over": "ReceiptHandedOver",
    "failed": "ReceiptFailed",
    "retry": "ReceiptRetry",
    "configuration_fault": "ReceiptConfigurationFault",
    "missing": "ReceiptMissing",
    "receipt_lost": "ReceiptLost",
    "unrecorded": "ResultUnrecorded",
}
PRUNED: Mapping[str, Metric] = {
    "presence_offline": "PrunedPresenceOffline",
    "devices_deactivated": "PrunedDevicesDeactivated",
    "devices_deleted": "PrunedDevicesDeleted",
    "decisions_deleted": "PrunedDecisionsDeleted",
    "jobs_deleted": "PrunedJobsDeleted",
}


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The counts of the run. An exception ends the run, and the next one continues."""
    database, senders = clients(settings)
    report = clean_up(database, senders.expo, lambda: context.get_remaining_time_in_millis() / 1000)
    _count(report)
    return vars(report)


def _count(report: CleanupReport) -> None:
    count("CleanupCompleted")
    for status, metric in RECEIPTS.items():
        count(metric, report.receipts[status])
    for done, metric in PRUNED.items():
        count(metric, report.pruned[done])
    count("DeviceDeactivated", report.deactivated)
    count("DeviceDeactivationHeld", report.held)
    count("ReceiptsUnavailable", bool(report.unavailable))
    count("ConfigurationFault", report.configuration_faults)
    if report.configuration_faults:
        logger.error(CONFIGURATION_FAULT, errors=dict(report.errors), unavailable=report.unavailable)
    if report.held:
        logger.error(DEVICES_HELD, held=report.held)
