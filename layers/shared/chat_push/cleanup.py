"""What became of the pushes: receipts, dead devices, and the end of old rows."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from chat_push.database import PushDatabase
from chat_push.expo import MAX_TICKETS_PER_REQUEST, Expo, Outcome, ReceiptsUnavailable
from chat_push.models import DueReceipt, RecordedReceipt
from chat_push.observability import logger

ROWS_PER_PRUNE = 1000
# A claim, a request and a record may take so long at the worst; what is left then waits for the next run.
PAGE_RESERVE_SECONDS = 20.0


@dataclass
class CleanupReport:
    """What became of one run."""

    receipts: Counter[str] = field(default_factory=Counter)  # by status
    errors: Counter[str] = field(default_factory=Counter)  # of receipts, by code
    unavailable: str | None = None  # why Expo gave no more receipts
    configuration_faults: int = 0  # receipts, or requests for them, that a person must mend
    deactivated: int = 0
    held: int = 0  # dead devices that the circuit breaker left on
    pruned: Counter[str] = field(default_factory=Counter)  # rows, by what was done to them


def clean_up(database: PushDatabase, expo: Expo, time_left: Callable[[], float]) -> CleanupReport:
    """Reads every receipt that is due and ends what is old, as far as time goes.

    Raises DatabaseUnavailable or DatabaseRefused; receipts that were claimed by then are due again after two minutes.
    """
    report = CleanupReport()
    _read_receipts(database, expo, time_left, report)
    more = True
    while more and time_left() > PAGE_RESERVE_SECONDS:
        pruned = database.prune_push(ROWS_PER_PRUNE)
        report.pruned.update(pruned.model_dump(exclude={"more"}))
        more = pruned.more
    return report


def _read_receipts(database: PushDatabase, expo: Expo, time_left: Callable[[], float], report: CleanupReport) -> None:
    run_id = uuid4()
    while time_left() > PAGE_RESERVE_SECONDS and (due := database.claim_due_receipts(MAX_TICKETS_PER_REQUEST)):
        try:
            ready = expo.receipts([receipt.ticket_id for receipt in due], time_left)
        except ReceiptsUnavailable as error:
            report.unavailable = str(error)
            report.configuration_faults += error.configuration_fault
            logger.error("Expo gives no receipts, the next run asks again", error=str(error))
            break
        read = [_to_recorded_receipt(receipt, ready.get(receipt.ticket_id)) for receipt in due]
        report.receipts.update(database.record_push_receipts(run_id, read))
        report.errors.update(receipt.error for receipt in read if receipt.error)
        report.configuration_faults += sum(receipt.status == "configuration_fault" for receipt in read)
        for receipt in read:
            if receipt.error:
                logger.warning("push not handed over", correlation_id=str(receipt.message_id), error=receipt.error)
    finished = database.finish_receipt_run(run_id)
    report.deactivated, report.held = finished.deactivated, finished.held


def _to_recorded_receipt(due: DueReceipt, outcome: Outcome | None) -> RecordedReceipt:
    """An id that Expo leaves out is not ready, not known, or cleared."""
    said = {"status": outcome.status, "error": outcome.error} if outcome else {"status": "missing"}
    return RecordedReceipt.model_validate({**due.model_dump(), **said})
