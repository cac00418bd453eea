"""./dev doctor: runs the checks, prints their results, and returns an exit code for monitoring."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from operate.doctor import database, push_service, services, webhook
from operate.doctor.results import Finding, NotExamined, Result, Unhealthy
from operate.doctor.system import System, deployed, local_cloud

type Check = Callable[[System], Iterator[Result]]

# First the checks for lost pushes, then those for late pushes, then those for waste.
CHECKS: dict[str, Check] = {
    "migrations": database.migrations,
    "job triggers": database.job_triggers,
    "jobs": database.jobs,
    "choices": database.choices,
    "reports": database.reports,
    "Expo": push_service.access_token,
    "FCM, APNs": push_service.direct_providers,
    "row level security": database.row_level_security,
    "rights": database.rights,
    "webhook": webhook.webhook,
    "webhook authorizer": webhook.authorizer,
    "webhook answers": database.answers,
    "versions": services.versions,
    "concurrency": services.concurrency,
    "queue": services.queue,
    "dead letters": services.dead_letters,
    "schedules": services.schedules,
    "alarms": services.alarms,
    "receipts": database.receipts,
    "breaker": database.held_deactivations,
    "devices": database.devices,
    "installation": database.installation,
    "names": database.names,
}


def doctor(arguments: argparse.Namespace) -> int:
    """Prints the results of all checks and returns the exit code.

    0: healthy; 1: there are findings; 2: there are none, but a check could not be made. Raises NotReachable, and errors
    of AWS for a stack that cannot be described.
    """
    system = deployed(arguments.stack) if arguments.stack else local_cloud(arguments.env)
    checks = CHECKS
    if arguments.send:
        checks = {**CHECKS, "test push": partial(push_service.send_test_push, user_id=arguments.send)}
    with system.transport:
        return report(examine(system, checks))


def report(results: Iterable[Result]) -> int:
    """Prints each result as it comes and returns the exit code of `doctor`."""
    findings = unknown = 0
    for result in results:
        print(result, flush=True)
        findings += isinstance(result, Finding)
        unknown += isinstance(result, NotExamined)
    print(f"\n{findings} findings, {unknown} unknown" if findings or unknown else "\nhealthy")
    return 1 if findings else 2 if unknown else 0


def examine(system: System, checks: dict[str, Check]) -> Iterator[Result]:
    """Yields the results of all checks.

    A fault that stops several checks is reported once, as a finding; the other checks are then not examined.
    """
    reported = set()
    for name, check in checks.items():
        try:
            yield from check(system)
        except Unhealthy as error:
            if error.finding in reported:
                yield NotExamined(name, error.finding.what)
            else:
                reported.add(error.finding)
                yield error.finding
        except (BotoCoreError, ClientError, httpx.HTTPError) as error:
            yield NotExamined(name, f"{type(error).__name__}: {error}")
        except ValidationError as error:
            # The error text may quote a secret value, so it is not printed.
            yield NotExamined(name, f"the answer is not a valid {error.title}: check out the release that is deployed")
