"""Checks of the AWS services: functions, the queue and its dead letters, schedules, alarms and their subscribers."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from operate.doctor.results import Finding, Healthy, NotLocal, Result, duration
from operate.doctor.system import System

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_sqs import SQSClient


# A record that fails is received again after two minutes; a record that is never received only grows older.
QUEUE_AGE = timedelta(minutes=5)

# Concurrent executions besides those of the queue: a sweep, cleanup_receipts, some registrations and authorizations.
OTHER_EXECUTIONS = 5

UNNOTICED = "Alarms are raised, but no operator is notified."

# The properties of a published version that change how it runs.
PUBLISHED = (
    "Architectures",
    "CodeSha256",
    "Environment",
    "Handler",
    "Layers",
    "LoggingConfig",
    "MemorySize",
    "Role",
    "Runtime",
    "Timeout",
    "TracingConfig",
)


def versions(system: System) -> Iterator[Result]:
    """Checks that the alias `live`, which all callers use, runs the last deployment of each function."""
    if not system.stack:
        yield NotLocal("versions")
        return
    client: LambdaClient = system.aws.client("lambda")
    functions = system.stack.of_type("AWS::Lambda::Function")
    behind = False
    for logical_id, name in functions.items():
        deployed: Any = client.get_function_configuration(FunctionName=name)
        live: Any = client.get_function_configuration(FunctionName=name, Qualifier="live")
        different = [field for field in PUBLISHED if deployed.get(field) != live.get(field)]
        if _snap_start(deployed) != _snap_start(live):
            different.append("SnapStart")
        if different:
            behind = True
            yield Finding(
                f"live of {logical_id} is version {live['Version']}, which differs from the last deployment:"
                f" {', '.join(different)}",
                "The last deployment or a manual change is not in use, and functions may run different releases.",
                f"aws lambda update-alias --function-name {name} --name live --function-version"
                f" $(aws lambda publish-version --function-name {name} --query Version --output text)",
            )
    if not behind:
        yield Healthy(f"versions: live of {len(functions)} functions runs the last deployment")


def _snap_start(configuration: Any) -> str:
    """Whether SnapStart is on. The state of its snapshots is left out, because it differs between versions."""
    return str(configuration.get("SnapStart", {}).get("ApplyOn", "None"))


def concurrency(system: System) -> Iterator[Result]:
    """Checks that the account allows as many concurrent executions as all functions together may need."""
    if not system.stack:
        yield NotLocal("concurrency")
        return
    client: LambdaClient = system.aws.client("lambda")
    available = client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    for_queue = int(system.stack.parameters["MaximumConcurrency"])
    if available < for_queue + OTHER_EXECUTIONS:
        yield Finding(
            f"the account allows {available} concurrent executions, and the queue alone may use {for_queue}"
            " (MaximumConcurrency)",
            "Under load Lambda throttles webhook calls, registrations, and other functions of the account.",
            "aws service-quotas request-service-quota-increase --service-code lambda --quota-code L-B99A9384"
            " --desired-value 1000; until it is granted, sam deploy with a smaller MaximumConcurrency",
        )
    else:
        yield Healthy(f"concurrency: {available} concurrent executions, of which the queue may use {for_queue}")


def queue(system: System) -> Iterator[Result]:
    """Checks that SendChatPush receives the records."""
    depth, age = _depth(system, system.queue_url), _age(system)
    if age is not None and age > QUEUE_AGE.total_seconds():
        yield Finding(
            f"the oldest of {depth} records in the queue has been there for {duration(age)}",
            "SendChatPush does not run or fails; the sweep sends the messages, up to a minute late.",
            system.log_of("SendChatPush"),
        )
    else:
        old = f"the oldest for {duration(age)}" if age is not None else "CloudWatch has no age of the last minutes"
        yield Healthy(f"queue: {depth} records wait, {old}")


def dead_letters(system: System) -> Iterator[Result]:
    """Checks that no record has failed for the last time."""
    if dead := _depth(system, system.dead_letters_url):
        yield Finding(
            f"{dead} records are in the dead-letter queue",
            "Each failed five times; usually the sweep has sent their messages, and SQS deletes them after 14 days.",
            f"./dev redrive {system.option}",
        )
    else:
        yield Healthy("dead letters: none")


def schedules(system: System) -> Iterator[Result]:
    """Checks that the schedules of the sweep and of cleanup_receipts are enabled."""
    if not system.stack:
        yield NotLocal("schedules")
        return
    client: EventBridgeSchedulerClient = system.aws.client("scheduler")
    names = system.stack.of_type("AWS::Scheduler::Schedule")
    disabled = [name for name in names.values() if client.get_schedule(Name=name)["State"] != "ENABLED"]
    for name in disabled:
        yield Finding(
            f"the schedule {name} is disabled",
            "Without the sweep, pushes that the webhook lost are not sent; without cleanup, receipts are not read.",
            f"aws scheduler get-schedule --name {name}"
            " | jq '.State = \"ENABLED\" | del(.Arn, .CreationDate, .LastModificationDate)' > schedule.json"
            " && aws scheduler update-schedule --cli-input-json file://schedule.json",
        )
    if not names:
        yield Finding("the stack has no schedule", "Pushes that the webhook lost are not sent.", "sam deploy")
    elif not disabled:
        yield Healthy(f"schedules: {len(names)} enabled")
    yield from _undelivered(system)


def _undelivered(system: System) -> Iterator[Result]:
    """Checks the other dead-letter queues, which hold the events that reached no function."""
    assert system.stack
    for logical_id, url in system.stack.of_type("AWS::SQS::Queue").items():
        if url not in (system.queue_url, system.dead_letters_url) and (dead := _depth(system, url)):
            yield Finding(
                f"{dead} records are in {logical_id}",
                "Events did not reach their function, or the function failed; the next run does its work.",
                f"aws sqs receive-message --queue-url {url}  # then: aws sqs purge-queue --queue-url {url}",
            )


def alarms(system: System) -> Iterator[Result]:
    """Checks that no alarm is raised, and that each alarm notifies a subscriber."""
    if not system.stack:
        yield NotLocal("alarms")
        return
    client: CloudWatchClient = system.aws.client("cloudwatch")
    logical_ids = {name: logical_id for logical_id, name in system.stack.of_type("AWS::CloudWatch::Alarm").items()}
    found = client.describe_alarms(AlarmNames=list(logical_ids))["MetricAlarms"] if logical_ids else []
    findings = []
    for alarm in found:
        name, logical_id = alarm["AlarmName"], logical_ids[alarm["AlarmName"]]
        if alarm["StateValue"] == "ALARM":
            consequence = alarm.get("StateReason") or "Its metric is out of bounds."
            remedy = f"read {logical_id} in docs/operate.md"
            findings.append(Finding(f"the alarm {logical_id} is raised", consequence, remedy))
        elif alarm["StateValue"] == "INSUFFICIENT_DATA":
            consequence = "The alarm cannot be raised, which is normal for some minutes after a deployment."
            remedy = f"aws cloudwatch describe-alarm-history --alarm-name {name}"
            findings.append(Finding(f"the alarm {logical_id} has no data", consequence, remedy))
        if not alarm["ActionsEnabled"]:
            remedy = f"aws cloudwatch enable-alarm-actions --alarm-names {name}"
            findings.append(Finding(f"the actions of the alarm {logical_id} are off", UNNOTICED, remedy))
        elif system.stack.alarm_topic not in alarm["AlarmActions"]:
            remedy = f"add the action {system.stack.alarm_topic} to the alarm {name}, in the CloudWatch console"
            findings.append(Finding(f"the alarm {logical_id} does not notify AlarmTopic", UNNOTICED, remedy))
    if missing := logical_ids.keys() - {alarm["AlarmName"] for alarm in found}:
        remedy = "create the alarms again under the same names, or delete the stack, then sam deploy"
        findings.append(Finding(f"alarms do not exist: {', '.join(sorted(missing))}", UNNOTICED, remedy))
    yield from findings
    if not findings:
        yield Healthy(f"alarms: {len(found)}, none raised")
    yield from _subscribers(system, system.stack.alarm_topic)


def _subscribers(system: System, topic: str) -> Iterator[Result]:
    subscriptions = system.aws.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    confirmed = [one for one in subscriptions if one["SubscriptionArn"].startswith("arn:")]
    if confirmed:
        yield Healthy(f"alarm topic: {len(confirmed)} subscribed")
    elif subscriptions:
        remedy = "open the confirmation link in the mail that AWS sent to each address"
        yield Finding("no subscription of the alarm topic is confirmed", UNNOTICED, remedy)
    else:
        remedy = f"aws sns subscribe --topic-arn {topic} --protocol email --notification-endpoint <address>"
        yield Finding("the alarm topic has no subscription", UNNOTICED, remedy)


def _depth(system: System, url: str) -> int:
    client: SQSClient = system.aws.client("sqs", endpoint_url=system.endpoint_url)
    attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    return int(attributes["ApproximateNumberOfMessages"])


def _age(system: System) -> float | None:
    """The age of the queue's oldest record in seconds; None: CloudWatch has no figure, as for an idle queue."""
    client: CloudWatchClient = system.aws.client("cloudwatch", endpoint_url=system.endpoint_url)
    now = datetime.now(UTC)
    points = client.get_metric_statistics(
        Namespace="AWS/SQS",
        MetricName="ApproximateAgeOfOldestMessage",
        Dimensions=[{"Name": "QueueName", "Value": system.queue_url.rsplit("/", 1)[1]}],
        StartTime=now - timedelta(minutes=10),
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=["Maximum"],
    )["Datapoints"]
    return max(points, key=lambda point: point["Timestamp"])["Maximum"] if points else None
