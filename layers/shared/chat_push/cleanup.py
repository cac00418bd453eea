"""The periodic clean-up: reads receipts, deactivates devices with dead tokens, deletes old rows."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from chat_push.database import PushDatabase
from chat_push.expo import MAX_TICKETS_PER_REQUEST, Expo
from chat_push.expo_errors import ReceiptsUnavailable
from chat_push.models import DueReceipt, RecordedReceipt
from chat_push.observability import logger
from chat_push.outcome import Outcome

ROWS_PER_PRUNE = 1000
# The longest time that one round can take: a claim, a request and a record. With less left, the next run continues.
ROUND_SECONDS = 20.0


@dataclass
class CleanupReport:
    """The counts of one run."""

    receipts: Counter[str] = field(default_factory=Counter)  # by status
    errors: Counter[str] = field(default_factory=Counter)  # of receipts, by code
    unavailable: str | None = None  # why Expo returned no more receipts
    configuration_faults: int = 0  # receipts, or requests for them, that need an operator
    deactivated: int = 0  # devices
    held: int = 0  # devices with a dead token that the circuit breaker keeps active
    pruned: Counter[str] = field(default_factory=Counter)  # rows, by what was done to them


def clean_up(database: PushDatabase, expo: Expo, time_left: Callable[[], float]) -> CleanupReport:
    """Reads all due receipts, then prunes old rows, until done or out of time. `time_left` returns seconds.

    Raises DatabaseUnavailable or DatabaseRefused. Receipts that were claimed before are due again after two minutes.
    """
    report = CleanupReport()
    _read_receipts(database, expo, time_left, report)
    more = True
    while more and time_left() > ROUND_SECONDS:
        pruned = database.prune_push(ROWS_PER_PRUNE)
        report.pruned.update(pruned.model_dump(exclude={"more"}))
        more = pruned.more
    return report


def _read_receipts(database: PushDatabase, expo: Expo, time_left: Callable[[], float], report: CleanupReport) -> None:
    run_id = uuid4()
    while time_left() > ROUND_SECONDS and (due := database.claim_due_receipts(MAX_TICKETS_PER_REQUEST)):
        try:
            # The deliveries of a merged notification have one ticket.
            ready = expo.receipts(list(dict.fromkeys(receipt.ticket_id for receipt in due)), time_left)
        except ReceiptsUnavailable as error:
            report.unavailable = str(error)
            report.configuration_faults += error.configuration_fault
            logger.error("Expo returned no receipts: the next run requests them again", error=str(error))
            break
        receipts = [_to_recorded_receipt(receipt, ready.get(receipt.ticket_id)) for receipt in due]
        report.receipts.update(database.record_push_receipts(run_id, receipts))
        report.errors.update(receipt.error for receipt in receipts if receipt.error)
        report.configuration_faults += sum(receipt.status == "configuration_fault" for receipt in receipts)
        for receipt in receipts:
            if receipt.error:
                message_id = str(receipt.message_id) if receipt.message_id else None
                logger.warning("receipt reports an error", correlation_id=message_id, error=receipt.error)
    finished = database.finish_receipt_run(run_id)
    report.deactivated, report.held = finished.deactivated, finished.held


def _to_recorded_receipt(due: DueReceipt, outcome: Outcome | None) -> RecordedReceipt:
    """The receipt to record. Without an outcome, it is missing: not ready, unknown to Expo, or deleted."""
    receipt = {"status": outcome.status, "error": outcome.error} if outcome else {"status": "missing"}
    return RecordedReceipt.model_validate({**due.model_dump(), **receipt})
