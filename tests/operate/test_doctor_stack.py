"""./dev doctor finds each fault of a deployed stack."""

import asyncio
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import botocore.handlers
import pytest
from moto import mock_aws

from local.aws.account import ACCOUNT, REGION
from operate.__main__ import main
from operate.doctor.command import report
from operate.doctor.results import NotExamined
from tests.operate.conftest import BreakableCloud
from tests.operate.deployed_stack import Account, Made, Stack


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    account = Account()
    handler = ("before-send.lambda.GetAccountSettings", account)
    monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", [handler, *botocore.handlers.BUILTIN_HANDLERS])
    return account


@pytest.fixture
def stack(breakable: BreakableCloud, account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    from moto.cloudformation import parsing  # slow, and each worker of pytest imports all tests

    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    created_by_tests = ("CloudWatch::Alarm", "Lambda::Function", "Scheduler::Schedule", "SecretsManager::Secret")
    for kind in created_by_tests:
        monkeypatch.setitem(parsing.get_model_map(), f"AWS::{kind}", Made)
    with mock_aws():
        stack = Stack(breakable)
        stack.subscribe()
        yield stack


async def test_a_healthy_stack_has_no_finding(stack: Stack) -> None:
    await stack.is_healthy()


async def test_the_command_finds_the_stack_by_its_name(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["./dev", "doctor", "--stack", stack.name])
    assert await asyncio.to_thread(main) == 0
    assert capsys.readouterr().out.endswith("\nhealthy\n")


async def test_the_remedy_for_a_deployment_that_did_not_go_live_fixes_it(stack: Stack) -> None:
    stack.lambda_.update_function_configuration(
        FunctionName=stack.function, Timeout=20, Environment={"Variables": {"EXPO_URL": "https://other.example"}}
    )
    finding = await stack.finding(
        "live of SendChatPush is version 1, which differs from the last deployment: Environment, Timeout"
    )
    assert "https://" not in str(finding)
    assert (
        f"update-alias --function-name {stack.function} --name live --function-version $(aws lambda publish"
        in finding.remedy
    )
    published = stack.lambda_.publish_version(FunctionName=stack.function)["Version"]
    stack.lambda_.update_alias(FunctionName=stack.function, Name="live", FunctionVersion=published)
    await stack.is_healthy()


@pytest.mark.parametrize(("concurrency", "enough"), [(10, True), (9, False)])
async def test_an_account_with_too_little_concurrency_is_a_finding(
    stack: Stack, account: Account, concurrency: int, enough: bool
) -> None:
    account.concurrency = concurrency
    if enough:
        await stack.is_healthy()
    else:
        finding = await stack.finding("the account allows 9 concurrent executions, and the queue alone may use 5")
        assert "request-service-quota-increase --service-code lambda" in finding.remedy


async def test_an_old_record_in_the_queue_is_a_finding(stack: Stack) -> None:
    url = stack.url("PushQueue")
    stack.sqs.send_message(QueueUrl=url, MessageBody="id")
    stack.cloudwatch.put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Dimensions": [{"Name": "QueueName", "Value": url.rsplit("/", 1)[1]}],
                "Timestamp": datetime.now(UTC),
                "Value": 400,
            }
        ],
    )
    finding = await stack.finding("the oldest of 1 records in the queue has been there for 7 minutes")
    assert f"sam logs --stack-name {stack.name} --name SendChatPush" in finding.remedy


async def test_the_command_of_the_finding_moves_dead_letters_back(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.sqs.send_message(QueueUrl=stack.url("PushDeadLetters"), MessageBody="id")
    finding = await stack.finding("1 records are in the dead-letter queue")
    monkeypatch.setattr(sys, "argv", finding.remedy.split())
    assert await asyncio.to_thread(main) == 0
    await stack.is_healthy()


async def test_an_event_that_reached_no_function_is_a_finding(stack: Stack) -> None:
    url = stack.url("ScheduleDeadLetters")
    stack.sqs.send_message(QueueUrl=url, MessageBody="{}")
    finding = await stack.finding("1 records are in ScheduleDeadLetters")
    assert finding.remedy.endswith(f"aws sqs purge-queue --queue-url {url}")
    stack.sqs.purge_queue(QueueUrl=url)
    await stack.is_healthy()


async def test_a_disabled_schedule_is_a_finding(stack: Stack) -> None:
    def set_state(state: Any) -> None:
        # The command of the finding does the same with jq.
        schedule: Any = stack.scheduler.get_schedule(Name=stack.schedule)
        for field in ("Arn", "CreationDate", "LastModificationDate", "ResponseMetadata"):
            schedule.pop(field, None)
        stack.scheduler.update_schedule(**{**schedule, "State": state})

    set_state("DISABLED")
    finding = await stack.finding(f"the schedule {stack.schedule} is disabled")
    assert f"aws scheduler get-schedule --name {stack.schedule}" in finding.remedy
    set_state("ENABLED")
    await stack.is_healthy()


async def test_a_raised_alarm_is_a_finding(stack: Stack) -> None:
    stack.raise_alarm("ALARM")
    finding = await stack.finding("the alarm DeadLettersAlarm is raised")
    assert (finding.consequence, finding.remedy) == (
        "Threshold crossed",
        "read DeadLettersAlarm in docs/operate.md",
    )


async def test_an_alarm_without_data_is_a_finding(stack: Stack) -> None:
    stack.raise_alarm("INSUFFICIENT_DATA")
    await stack.finding("the alarm DeadLettersAlarm has no data")


async def test_an_alarm_with_disabled_actions_is_a_finding(stack: Stack) -> None:
    stack.cloudwatch.disable_alarm_actions(AlarmNames=[stack.alarm])
    finding = await stack.finding("the actions of the alarm DeadLettersAlarm are off")
    assert finding.remedy == f"aws cloudwatch enable-alarm-actions --alarm-names {stack.alarm}"
    stack.cloudwatch.enable_alarm_actions(AlarmNames=[stack.alarm])
    await stack.is_healthy()


async def test_an_alarm_that_does_not_notify_the_topic_is_a_finding(stack: Stack) -> None:
    stack.raise_alarm("OK", notify=False)
    await stack.finding("the alarm DeadLettersAlarm does not notify AlarmTopic")


async def test_a_deleted_alarm_is_a_finding(stack: Stack) -> None:
    stack.cloudwatch.delete_alarms(AlarmNames=[stack.alarm])
    await stack.finding("alarms do not exist")


async def test_an_alarm_topic_without_a_subscription_is_a_finding(stack: Stack) -> None:
    [known] = stack.sns.list_subscriptions_by_topic(TopicArn=stack.topic)["Subscriptions"]
    stack.sns.unsubscribe(SubscriptionArn=known["SubscriptionArn"])
    finding = await stack.finding("the alarm topic has no subscription")
    assert f"aws sns subscribe --topic-arn {stack.topic} --protocol email" in finding.remedy
    stack.subscribe()
    await stack.is_healthy()


async def test_an_unconfirmed_subscription_is_a_finding(stack: Stack) -> None:
    from moto.sns.models import sns_backends

    # moto confirms each subscription at once.
    [subscription] = sns_backends[ACCOUNT][REGION].subscriptions.values()
    subscription.arn = "PendingConfirmation"
    await stack.finding("no subscription of the alarm topic is confirmed")


async def test_an_aws_call_that_fails_is_reported_as_unknown(stack: Stack) -> None:
    stack.scheduler.delete_schedule(Name=stack.schedule)
    results = await stack.examination()
    assert report(results) == 2
    [unknown] = [result for result in results if isinstance(result, NotExamined)]
    assert unknown.what == "schedules"
    assert "ResourceNotFoundException" in unknown.why


@pytest.mark.parametrize("exists", [False, True])
def test_a_stack_of_another_template_is_refused(
    exists: bool, stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if exists:
        topic = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
        boto3.client("cloudformation").create_stack(StackName="other", TemplateBody=json.dumps(topic))
    monkeypatch.setattr(sys, "argv", ["./dev", "doctor", "--stack", "other"])
    assert main() == 2
    assert "--stack other: " + ("the stack has no 'SupabaseUrl'" if exists else "") in capsys.readouterr().err
