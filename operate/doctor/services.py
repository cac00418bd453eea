"""AWS's own services: functions, the queue and its dead letters, schedules, alarms and who is told of them."""

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


# A record that fails comes back after two minutes; one that nobody takes only grows older.
QUEUE_AGE = timedelta(minutes=5)

# Executions besides those of the queue: a sweep, cleanup_receipts, and a few registrations and authorizations.
OTHER_EXECUTIONS = 5

# What a version is published with, and what changes how it runs.
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
    """Does `live`, which everybody calls, run what was deployed last?"""
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
                f"live of {logical_id} is version {live['Version']}, and not what was deployed last:"
                f" {', '.join(different)}",
                "The last deployment, or a change by hand, is not in use; functions may be of different releases.",
                f"aws lambda update-alias --function-name {name} --name live --function-version"
                f" $(aws lambda publish-version --function-name {name} --query Version --output text)",
            )
    if not behind:
        yield Healthy(f"versions: live of {len(functions)} functions is what was deployed last")


def _snap_start(configuration: Any) -> str:
    """Whether snapshots are made; how far they are is no difference."""
    return str(configuration.get("SnapStart", {}).get("ApplyOn", "None"))


def concurrency(system: System) -> Iterator[Result]:
    """Does the account let all functions run at once that may have to?"""
    if not system.stack:
        yield NotLocal("concurrency")
        return
    client: LambdaClient = system.aws.client("lambda")
    available = client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    for_queue = int(system.stack.parameters["MaximumConcurrency"])
    if available < for_queue + OTHER_EXECUTIONS:
        yield Finding(
            f"the account runs {available} functions at once, of which the queue alone may take {for_queue}"
            " (MaximumConcurrency)",
            "At busy times Lambda throttles: webhooks and phones are refused, and other functions of the account stop.",
            "aws service-quotas request-service-quota-increase --service-code lambda --quota-code L-B99A9384"
            " --desired-value 1000; until it is granted, sam deploy with a smaller MaximumConcurrency",
        )
    else:
        yield Healthy(f"concurrency: {available} executions at once, of which the queue may take {for_queue}")


def queue(system: System) -> Iterator[Result]:
    """Does anybody take the records?"""
    depth, age = _depth(system, system.queue_url), _age(system)
    if age is not None and age > QUEUE_AGE.total_seconds():
        yield Finding(
            f"the oldest of {depth} records in the queue has been there for {duration(age)}",
            "SendChatPush does not take them or fails. The sweep sends their messages meanwhile, up to a minute late.",
            system.log_of("SendChatPush"),
        )
    else:
        old = f"the oldest for {duration(age)}" if age is not None else "CloudWatch has no age of late"
        yield Healthy(f"queue: {depth} records wait, {old}")


def dead_letters(system: System) -> Iterator[Result]:
    """Did a record fail for good?"""
    if dead := _depth(system, system.dead_letters_url):
        yield Finding(
            f"{dead} records are in the dead-letter queue",
            "Each failed five times. Usually the sweep has sent their messages since; after 14 days they are gone.",
            f"./dev redrive {system.option}",
        )
    else:
        yield Healthy("dead letters: none")


def schedules(system: System) -> Iterator[Result]:
    """Do the sweep and the cleaner come?"""
    if not system.stack:
        yield NotLocal("schedules")
        return
    client: EventBridgeSchedulerClient = system.aws.client("scheduler")
    names = system.stack.of_type("AWS::Scheduler::Schedule")
    disabled = [name for name in names.values() if client.get_schedule(Name=name)["State"] != "ENABLED"]
    for name in disabled:
        yield Finding(
            f"the schedule {name} is disabled",
            "What it calls does not come: the sweep sends what the webhook lost, the cleaner reads the receipts.",
            f"aws scheduler get-schedule --name {name}"
            " | jq '.State = \"ENABLED\" | del(.Arn, .CreationDate, .LastModificationDate)' > schedule.json"
            " && aws scheduler update-schedule --cli-input-json file://schedule.json",
        )
    if not names:
        yield Finding("the stack has no schedule", "Nobody sends what the webhook lost.", "sam deploy")
    elif not disabled:
        yield Healthy(f"schedules: {len(names)} enabled")
    yield from _undelivered(system)


def _undelivered(system: System) -> Iterator[Result]:
    """Dead letters of others than SendChatPush's queue: events that reached no function."""
    assert system.stack
    for logical_id, url in system.stack.of_type("AWS::SQS::Queue").items():
        if url not in (system.queue_url, system.dead_letters_url) and (dead := _depth(system, url)):
            yield Finding(
                f"{dead} records are in {logical_id}",
                "Events did not reach their function, or it failed; the next run did their work, if it came.",
                f"aws sqs receive-message --queue-url {url}, then: aws sqs purge-queue --queue-url {url}",
            )


def alarms(system: System) -> Iterator[Result]:
    """Is an alarm raised, or could one be raised unheard?"""
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
            consequence = alarm.get("StateReason") or "What it watches is out of bounds."
            remedy = f"what docs/operate.md says of {logical_id}"
            findings.append(Finding(f"the alarm {logical_id} is raised", consequence, remedy))
        elif alarm["StateValue"] == "INSUFFICIENT_DATA":
            consequence = "It cannot be raised. Right after a deploy it is so for some minutes."
            remedy = f"aws cloudwatch describe-alarm-history --alarm-name {name}"
            findings.append(Finding(f"the alarm {logical_id} has no data", consequence, remedy))
        if not alarm["ActionsEnabled"]:
            remedy = f"aws cloudwatch enable-alarm-actions --alarm-names {name}"
            findings.append(Finding(f"the actions of the alarm {logical_id} are off", "Nobody is told of it.", remedy))
        elif system.stack.alarm_topic not in alarm["AlarmActions"]:
            remedy = f"the action {system.stack.alarm_topic} for the alarm {name}, in CloudWatch's console"
            findings.append(
                Finding(f"the alarm {logical_id} does not notify AlarmTopic", "Nobody is told of it.", remedy)
            )
    if missing := logical_ids.keys() - {alarm["AlarmName"] for alarm in found}:
        remedy = "sam deploy, after the stack was deleted; or the alarm made anew by hand under the same name"
        findings.append(Finding(f"alarms are gone: {', '.join(sorted(missing))}", "Nobody is told.", remedy))
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
        remedy = "the link in the mail that AWS has sent to each address"
        yield Finding("no subscription of the alarm topic is confirmed", "Alarms are raised unheard.", remedy)
    else:
        remedy = f"aws sns subscribe --topic-arn {topic} --protocol email --notification-endpoint <address>"
        yield Finding("nobody has subscribed to the alarm topic", "Alarms are raised unheard.", remedy)


def _depth(system: System, url: str) -> int:
    client: SQSClient = system.aws.client("sqs", endpoint_url=system.endpoint_url)
    attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    return int(attributes["ApproximateNumberOfMessages"])


def _age(system: System) -> float | None:
    """Seconds that the oldest record of the queue has been there; None: CloudWatch says nothing of an idle queue."""
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
