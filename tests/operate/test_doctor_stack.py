"""./dev doctor on a deployed stack: moto's CloudFormation, whose stack leads to the running local cloud."""

import asyncio
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import botocore.handlers
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto import mock_aws
from moto.cloudformation import parsing
from moto.core.botocore_stubber import MockRawResponse

from local.aws.account import ACCOUNT, REGION
from operate.__main__ import main
from operate.doctor.command import CHECKS, examine, report
from operate.doctor.results import Finding, NotExamined, Result
from operate.doctor.system import deployed
from tests.operate.conftest import BreakableCloud

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient


ARN = "arn:aws"


class Made:
    """A resource that moto's CloudFormation cannot make: the test has made it, under the name in the template.

    Unless it is taught so, moto leaves such a resource out of the stack.
    """

    def __init__(self, name: str) -> None:
        self.physical_resource_id = name

    def is_created(self) -> bool:
        return True

    @classmethod
    def create_from_cloudformation_json(cls, name: str, resource: Any, *account: str, **stack: str) -> "Made":
        return cls(resource["Properties"]["Name"])


class Stack:
    """A deployed stack. Its API, database and push service are those of the local cloud."""

    def __init__(self, patient: BreakableCloud) -> None:
        self.name = f"chat-push-{uuid4().hex[:8]}"
        self.sqs = boto3.client("sqs")
        self.cloudwatch: CloudWatchClient = boto3.client("cloudwatch")
        self.scheduler = boto3.client("scheduler")
        self.sns = boto3.client("sns")
        self.topic: str = self.sns.create_topic(Name=self.name)["TopicArn"]
        self.schedule = f"{self.name}-Sweep"
        self.scheduler.create_schedule(
            Name=self.schedule,
            ScheduleExpression="rate(1 minute)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": f"{ARN}:lambda:{REGION}:{ACCOUNT}:function:f", "RoleArn": f"{ARN}:iam::{ACCOUNT}:role/r"},
        )
        self.lambda_ = boto3.client("lambda")
        self.function = f"{self.name}-SendChatPush"
        self._publish_function()
        self.alarm = f"{self.name}-DeadLetters"
        self.raise_alarm("OK")
        cloud = patient.cloud
        for name, value in {
            "WebhookSecret": {"current": cloud.webhook_secret},
            "BackendSecret": {"supabase_secret_key": cloud.supabase.secret_key},
        }.items():
            secret = json.dumps(value)
            boto3.client("secretsmanager").create_secret(Name=f"{self.name}-{name}", SecretString=secret)
        boto3.client("cloudformation").create_stack(
            StackName=self.name,
            TemplateBody=json.dumps(self._template(f"{cloud.api_url}/api/push/chat-message")),
            Parameters=[
                {"ParameterKey": "SupabaseUrl", "ParameterValue": cloud.supabase.url},
                {"ParameterKey": "ExpoUrl", "ParameterValue": cloud.expo.url},
                {"ParameterKey": "MaximumConcurrency", "ParameterValue": "5"},
            ],
        )

    def _publish_function(self) -> None:
        """A function whose version 1 is live."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("app.py", "")
        trust = {"Version": "2012-10-17", "Statement": []}
        role = boto3.client("iam").create_role(RoleName=self.function, AssumeRolePolicyDocument=json.dumps(trust))
        self.lambda_.create_function(
            FunctionName=self.function,
            Runtime="python3.13",
            Role=role["Role"]["Arn"],
            Handler="app.lambda_handler",
            Code={"ZipFile": archive.getvalue()},
            Environment={"Variables": {"EXPO_URL": "https://exp.host"}},
            Publish=True,
        )
        self.lambda_.create_alias(FunctionName=self.function, Name="live", FunctionVersion="1")

    def _template(self, webhook_url: str) -> Any:
        queue = {"Type": "AWS::SQS::Queue"}
        secrets = {
            name: {"Type": "AWS::SecretsManager::Secret", "Properties": {"Name": f"{self.name}-{name}"}}
            for name in ("WebhookSecret", "BackendSecret")
        }
        return {
            "Parameters": {name: {"Type": "String"} for name in ("SupabaseUrl", "ExpoUrl", "MaximumConcurrency")},
            "Resources": {
                "PushQueue": queue,
                "PushDeadLetters": queue,
                "ScheduleDeadLetters": queue,
                "SendChatPush": {"Type": "AWS::Lambda::Function", "Properties": {"Name": self.function}},
                "SendChatPushSweep": {"Type": "AWS::Scheduler::Schedule", "Properties": {"Name": self.schedule}},
                "DeadLettersAlarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"Name": self.alarm}},
                **secrets,
            },
            "Outputs": {
                "WebhookUrl": {"Value": webhook_url},
                "AlarmTopic": {"Value": self.topic},
                **{name: {"Value": {"Ref": name}} for name in secrets},
            },
        }

    def raise_alarm(self, state: Any, *, notify: bool = True) -> None:
        """The alarm as deployed, in a state."""
        self.cloudwatch.put_metric_alarm(
            AlarmName=self.alarm,
            Namespace="AWS/SQS",
            MetricName="ApproximateNumberOfMessagesVisible",
            ComparisonOperator="GreaterThanThreshold",
            EvaluationPeriods=1,
            Period=60,
            Statistic="Maximum",
            Threshold=0,
            AlarmActions=[self.topic] if notify else [],
        )
        self.cloudwatch.set_alarm_state(AlarmName=self.alarm, StateValue=state, StateReason="Threshold crossed")

    def subscribe(self) -> None:
        """Somebody's address, which was confirmed."""
        self.sns.subscribe(TopicArn=self.topic, Protocol="email", Endpoint="on-call@example.com")

    def url(self, queue: str) -> str:
        """The URL of a queue of the stack."""
        found = boto3.client("cloudformation").describe_stack_resource(StackName=self.name, LogicalResourceId=queue)
        return found["StackResourceDetail"]["PhysicalResourceId"]

    async def examination(self) -> list[Result]:
        """All that the doctor says."""

        def run() -> list[Result]:
            system = deployed(self.name)
            with system.transport:
                return list(examine(system, CHECKS))

        return await asyncio.to_thread(run)

    async def finding(self, what: str) -> Finding:
        """The finding that says this, as its only one."""
        results = await self.examination()
        assert report(results) == 1
        findings = [result for result in results if isinstance(result, Finding)]
        assert [what in finding.what for finding in findings] == [True], findings
        return findings[0]

    async def is_healthy(self) -> None:
        """The doctor finds nothing, and has examined everything."""
        results = await self.examination()
        assert report(results) == 0, results


class Account:
    """What Lambda says of the account, which moto does not."""

    concurrency = 1000

    def __call__(self, request: AWSPreparedRequest, **event: Any) -> AWSResponse:
        limit = {"AccountLimit": {"UnreservedConcurrentExecutions": self.concurrency}}
        return AWSResponse(request.url, 200, {}, MockRawResponse(json.dumps(limit)))  # type: ignore[arg-type]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    account = Account()
    asked = ("before-send.lambda.GetAccountSettings", account)
    monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", [asked, *botocore.handlers.BUILTIN_HANDLERS])
    return account


@pytest.fixture
def stack(patient: BreakableCloud, account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    made = ("CloudWatch::Alarm", "Lambda::Function", "Scheduler::Schedule", "SecretsManager::Secret")
    for kind in made:
        monkeypatch.setitem(parsing.get_model_map(), f"AWS::{kind}", Made)
    with mock_aws():
        stack = Stack(patient)
        stack.subscribe()
        yield stack


async def test_healthy_stack(stack: Stack) -> None:
    await stack.is_healthy()


async def test_command_finds_the_stack_by_its_name(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["./dev", "doctor", "--stack", stack.name])
    assert await asyncio.to_thread(main) == 0
    assert capsys.readouterr().out.endswith("\nhealthy\n")


async def test_a_deployment_that_did_not_go_live_is_mended_by_what_the_finding_says(stack: Stack) -> None:
    stack.lambda_.update_function_configuration(
        FunctionName=stack.function, Timeout=20, Environment={"Variables": {"EXPO_URL": "https://other.example"}}
    )
    finding = await stack.finding(
        "live of SendChatPush is version 1, and not what was deployed last: Environment, Timeout"
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
        finding = await stack.finding("the account runs 9 functions at once, of which the queue alone may take 5")
        assert "request-service-quota-increase --service-code lambda" in finding.remedy


async def test_queue_that_nobody_empties(stack: Stack) -> None:
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


async def test_dead_letters_go_back_by_the_command_that_the_finding_names(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.sqs.send_message(QueueUrl=stack.url("PushDeadLetters"), MessageBody="id")
    finding = await stack.finding("1 records are in the dead-letter queue")
    monkeypatch.setattr(sys, "argv", finding.remedy.split())
    assert await asyncio.to_thread(main) == 0
    await stack.is_healthy()


async def test_events_that_reached_no_function(stack: Stack) -> None:
    url = stack.url("ScheduleDeadLetters")
    stack.sqs.send_message(QueueUrl=url, MessageBody="{}")
    finding = await stack.finding("1 records are in ScheduleDeadLetters")
    assert finding.remedy.endswith(f"aws sqs purge-queue --queue-url {url}")
    stack.sqs.purge_queue(QueueUrl=url)
    await stack.is_healthy()


async def test_schedule_that_is_disabled(stack: Stack) -> None:
    def set_state(state: Any) -> None:
        # What the command of the finding does, with jq.
        schedule: Any = stack.scheduler.get_schedule(Name=stack.schedule)
        for field in ("Arn", "CreationDate", "LastModificationDate", "ResponseMetadata"):
            schedule.pop(field, None)
        stack.scheduler.update_schedule(**{**schedule, "State": state})

    set_state("DISABLED")
    finding = await stack.finding(f"the schedule {stack.schedule} is disabled")
    assert f"aws scheduler get-schedule --name {stack.schedule}" in finding.remedy
    set_state("ENABLED")
    await stack.is_healthy()


async def test_alarm_that_is_raised(stack: Stack) -> None:
    stack.raise_alarm("ALARM")
    finding = await stack.finding("the alarm DeadLettersAlarm is raised")
    assert (finding.consequence, finding.remedy) == (
        "Threshold crossed",
        "what docs/operate.md says of DeadLettersAlarm",
    )


async def test_alarm_without_data(stack: Stack) -> None:
    stack.raise_alarm("INSUFFICIENT_DATA")
    await stack.finding("the alarm DeadLettersAlarm has no data")


async def test_alarm_whose_actions_are_off(stack: Stack) -> None:
    stack.cloudwatch.disable_alarm_actions(AlarmNames=[stack.alarm])
    finding = await stack.finding("the actions of the alarm DeadLettersAlarm are off")
    assert finding.remedy == f"aws cloudwatch enable-alarm-actions --alarm-names {stack.alarm}"
    stack.cloudwatch.enable_alarm_actions(AlarmNames=[stack.alarm])
    await stack.is_healthy()


async def test_alarm_that_notifies_nobody(stack: Stack) -> None:
    stack.raise_alarm("OK", notify=False)
    await stack.finding("the alarm DeadLettersAlarm does not notify AlarmTopic")


async def test_alarm_that_is_gone(stack: Stack) -> None:
    stack.cloudwatch.delete_alarms(AlarmNames=[stack.alarm])
    await stack.finding("alarms are gone")


async def test_alarm_topic_without_subscription(stack: Stack) -> None:
    [known] = stack.sns.list_subscriptions_by_topic(TopicArn=stack.topic)["Subscriptions"]
    stack.sns.unsubscribe(SubscriptionArn=known["SubscriptionArn"])
    finding = await stack.finding("nobody has subscribed to the alarm topic")
    assert f"aws sns subscribe --topic-arn {stack.topic} --protocol email" in finding.remedy
    stack.subscribe()
    await stack.is_healthy()


async def test_subscription_that_is_not_confirmed(stack: Stack) -> None:
    from moto.sns.models import sns_backends

    # moto confirms each at once.
    [subscription] = sns_backends[ACCOUNT][REGION].subscriptions.values()
    subscription.arn = "PendingConfirmation"
    await stack.finding("no subscription of the alarm topic is confirmed")


async def test_service_that_does_not_answer_is_unknown(stack: Stack) -> None:
    stack.scheduler.delete_schedule(Name=stack.schedule)
    results = await stack.examination()
    assert report(results) == 2
    [unknown] = [result for result in results if isinstance(result, NotExamined)]
    assert unknown.what == "schedules"
    assert "ResourceNotFoundException" in unknown.why


@pytest.mark.parametrize("made", [False, True])
def test_stack_that_is_not_this_one(
    made: bool, stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if made:
        topic = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
        boto3.client("cloudformation").create_stack(StackName="other", TemplateBody=json.dumps(topic))
    monkeypatch.setattr(sys, "argv", ["./dev", "doctor", "--stack", "other"])
    assert main() == 2
    assert "--stack other: " + ("has no 'SupabaseUrl'" if made else "") in capsys.readouterr().err
