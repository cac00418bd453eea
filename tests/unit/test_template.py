"""Rules of the platform that no linter knows, held against what SAM makes of template.yaml; and how it is read."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from local.build import PROJECT
from local.cloudformation import TemplateError, translate
from local.template import LambdaIntegration, Schedule, SqsIntegration, Template, read_template

PARAMETERS = {
    "SupabaseUrl": "https://abcdefghijklmnopqrst.supabase.co",
}
ENDPOINT = "http://127.0.0.1:5055"


@pytest.fixture(scope="module")
def template() -> Template:
    return read_template(PROJECT / "template.yaml", PARAMETERS, ENDPOINT)


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    resources: dict[str, Any] = translate(PROJECT / "template.yaml")["Resources"]
    return resources


def properties(resources: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [resource["Properties"] for resource in resources.values() if resource["Type"] == kind]


# Rules of the platform; the comments in the template say why they are as they are


def test_a_queue_hides_a_message_six_times_as_long_as_its_function_may_run(template: Template) -> None:
    for mapping in template.event_source_mappings.values():
        function, queue = template.functions[mapping.function], template.queues[mapping.queue]
        assert queue.visibility_timeout >= 6 * function.timeout


def test_a_batch_above_ten_would_need_a_window(resources: dict[str, Any]) -> None:
    for mapping in properties(resources, "AWS::Lambda::EventSourceMapping"):
        assert mapping["BatchSize"] <= 10 or mapping["MaximumBatchingWindowInSeconds"] >= 1


def test_failed_records_come_back_alone(template: Template) -> None:
    assert template.event_source_mappings
    assert all(mapping.reports_item_failures for mapping in template.event_source_mappings.values())


def test_the_queue_is_what_limits_concurrency(resources: dict[str, Any]) -> None:
    """Reserved concurrency would throttle the pollers, and each throttled poll counts as a receive."""
    for mapping in properties(resources, "AWS::Lambda::EventSourceMapping"):
        assert mapping["ScalingConfig"]["MaximumConcurrency"] >= 2
    for function in properties(resources, "AWS::Lambda::Function"):
        assert "ReservedConcurrentExecutions" not in function


def test_a_message_is_tried_five_times_and_outlives_its_queue_as_a_dead_letter(template: Template) -> None:
    redriven = [queue for queue in template.queues.values() if queue.redrive]
    assert {queue.name for queue in redriven} == {m.queue for m in template.event_source_mappings.values()}
    for queue in redriven:
        assert queue.redrive
        assert queue.redrive.max_receive_count >= 5
        assert template.queues[queue.redrive.queue].retention == timedelta(days=14)
        assert queue.retention < timedelta(days=14)


def test_queues_are_encrypted(resources: dict[str, Any]) -> None:
    assert all(queue["SqsManagedSseEnabled"] is True for queue in properties(resources, "AWS::SQS::Queue"))


def test_what_a_schedule_failed_to_do_is_left_to_its_next_time(resources: dict[str, Any]) -> None:
    schedules = properties(resources, "AWS::Scheduler::Schedule")
    assert [schedule["Target"]["RetryPolicy"]["MaximumRetryAttempts"] for schedule in schedules] == [0, 0]
    invocations = properties(resources, "AWS::Lambda::EventInvokeConfig")
    assert [config["MaximumRetryAttempts"] for config in invocations] == [0, 0]


def test_two_stacks_fit_into_one_account(resources: dict[str, Any]) -> None:
    names = ("Name", "FunctionName", "QueueName", "RoleName", "LogGroupName")
    for kind in ("Lambda::Function", "SQS::Queue", "IAM::Role", "Logs::LogGroup", "Scheduler::Schedule"):
        for resource in properties(resources, f"AWS::{kind}"):
            assert not any(name in resource for name in names), "a fixed name"
    for secret in properties(resources, "AWS::SecretsManager::Secret"):
        assert "Name" not in secret


def test_everybody_calls_the_alias(resources: dict[str, Any]) -> None:
    """Else they would meet $LATEST, which has no SnapStart."""
    aliases = {name for name, resource in resources.items() if resource["Type"] == "AWS::Lambda::Alias"}
    callers = [mapping["FunctionName"] for mapping in properties(resources, "AWS::Lambda::EventSourceMapping")]
    callers += [schedule["Target"]["Arn"] for schedule in properties(resources, "AWS::Scheduler::Schedule")]
    callers += [permission["FunctionName"] for permission in properties(resources, "AWS::Lambda::Permission")]
    [api] = properties(resources, "AWS::ApiGatewayV2::Api")
    for scheme in api["Body"]["components"]["securitySchemes"].values():
        _, variables = scheme["x-amazon-apigateway-authorizer"]["authorizerUri"]["Fn::Sub"]
        callers += variables.values()
    assert len(callers) == 9
    assert all(caller["Ref"] in aliases for caller in callers)
    uris = re.findall(r"functions/\${(\w+)}/invocations", json.dumps(api["Body"]["paths"]))
    assert len(uris) == 4
    assert set(uris) <= aliases


def test_each_function_has_a_log_group_that_forgets(resources: dict[str, Any]) -> None:
    groups = [
        function["LoggingConfig"]["LogGroup"]["Ref"] for function in properties(resources, "AWS::Lambda::Function")
    ]
    assert len(set(groups)) == len(groups)
    assert all(resources[group]["Properties"]["RetentionInDays"] for group in groups)


def test_functions_answer_before_the_gateway_gives_up(template: Template) -> None:
    for route in template.routes:
        if route.authorizer:
            assert template.functions[route.authorizer.function].timeout < timedelta(seconds=10)
        if isinstance(route.integration, LambdaIntegration):
            assert template.functions[route.integration.function].timeout < timedelta(seconds=30)


def test_the_webhooks_authorizer_is_for_the_webhook_alone(template: Template) -> None:
    """The routes of apps have none: register_device checks the access token itself."""
    assert {route.key: route.authorizer and route.authorizer.name for route in template.routes} == {
        "POST /api/push/chat-message": "WebhookAuthorizer",
        "POST /api/push/register": None,
        "DELETE /api/push/unregister": None,
        "GET /api/push/devices": None,
        "ANY /api/push/{proxy+}": None,
    }


def test_every_route_that_anybody_can_call_is_throttled(template: Template, resources: dict[str, Any]) -> None:
    [stage] = properties(resources, "AWS::ApiGatewayV2::Stage")
    assert stage["RouteSettings"].keys() == {route.key for route in template.routes if route.authorizer is None}
    for limits in stage["RouteSettings"].values():
        assert 0 < limits["ThrottlingRateLimit"] <= limits["ThrottlingBurstLimit"]


def test_register_device_knows_no_secret_but_the_publishable_key(template: Template) -> None:
    environment = template.functions["RegisterDevice"].environment
    assert environment.keys() - {name for name in environment if name.startswith("POWERTOOLS_")} == {
        "SUPABASE_URL",
        "APP_SECRET_ID",
    }
    assert environment["APP_SECRET_ID"] == "AppSecret"


def test_each_role_may_do_one_thing_to_one_resource(resources: dict[str, Any]) -> None:
    statements = {
        name: [
            (statement["Action"], next(iter(statement["Resource"].values())))
            for policy in resource["Properties"].get("Policies", [])
            for statement in policy["PolicyDocument"]["Statement"]
        ]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::IAM::Role"
    }
    assert statements == {
        "ApiRole": [("sqs:SendMessage", ["PushQueue", "Arn"])],
        "AuthorizeWebhookRole": [("secretsmanager:GetSecretValue", "WebhookSecret")],
        "RegisterDeviceRole": [("secretsmanager:GetSecretValue", "AppSecret")],
        "CleanupReceiptsRole": [("secretsmanager:GetSecretValue", "BackendSecret")],
        "CleanupReceiptsRunRole": [("lambda:InvokeFunction", "CleanupReceiptsAliaslive")],
        "SendChatPushRole": [("secretsmanager:GetSecretValue", "BackendSecret")],
        "SendChatPushSweepRole": [("lambda:InvokeFunction", "SendChatPushAliaslive")],
    }


def test_no_secret_passes_through_the_template(resources: dict[str, Any]) -> None:
    assert all("SecretString" not in secret for secret in properties(resources, "AWS::SecretsManager::Secret"))


def test_the_gateway_queues_the_id_alone(template: Template) -> None:
    [route] = [route for route in template.routes if isinstance(route.integration, SqsIntegration)]
    assert route.key == "POST /api/push/chat-message"
    assert route.integration == SqsIntegration("PushQueue", "$request.body.record.id", 202)


def test_the_webhook_url_that_is_put_out_is_a_route() -> None:
    translated = translate(PROJECT / "template.yaml")
    url = translated["Outputs"]["WebhookUrl"]["Value"]["Fn::Sub"]
    assert url == "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/api/push/chat-message"
    assert "/api/push/chat-message" in translated["Resources"]["Api"]["Properties"]["Body"]["paths"]


def test_the_makefile_builds_what_the_template_asks_it_to(resources: dict[str, Any]) -> None:
    built = {name for name, resource in resources.items() if resource["Type"] == "AWS::Lambda::Function"}
    built |= {layer["LayerName"] for layer in properties(resources, "AWS::Lambda::LayerVersion")}
    targets = re.findall(r"build-(\w+)(?=.*:$)", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(targets) == sorted(built)


# How it is read


def test_references_become_local_values(template: Template) -> None:
    sender = template.functions["SendChatPush"]
    assert sender.environment["SUPABASE_URL"] == PARAMETERS["SupabaseUrl"]
    assert sender.environment["EXPO_URL"] == "https://exp.host"
    assert sender.environment["BACKEND_SECRET_ID"] == "BackendSecret"
    assert sender.environment["POWERTOOLS_METRICS_NAMESPACE"] == "ChatPush"  # of Globals
    assert sender.layers == (PROJECT / "layers" / "dependencies", PROJECT / "layers" / "shared")
    assert template.queues["PushQueue"].url == f"{ENDPOINT}/123456789012/PushQueue"
    assert template.schedules == {
        "SendChatPushSweep": Schedule("SendChatPushSweep", "SendChatPush", timedelta(minutes=1), {"sweep": True}),
        "CleanupReceiptsRun": Schedule("CleanupReceiptsRun", "CleanupReceipts", timedelta(minutes=15), {}),
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "parameter SupabaseUrl is missing"),
        ({"SupabaseUrl": "https://x.supabase.co/"}, "SupabaseUrl must be an https URL"),
        ({"SupabaseUrl": "http://x.supabase.co"}, "SupabaseUrl must be an https URL"),
        (PARAMETERS | {"ExpoUrl": "exp.host"}, "ExpoUrl must be an https URL"),
        (PARAMETERS | {"Supabase": "x"}, "no such parameter: Supabase"),
    ],
)
def test_a_wrong_parameter_is_refused(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read_template(PROJECT / "template.yaml", parameters, ENDPOINT)


@pytest.mark.parametrize(
    ("correct", "wrong", "message"),
    [
        ("Timeout: 20", "TimeOut: 20", "TimeOut"),
        ("Timeout: 20", "Timeout: twenty", "SendChatPush.Timeout: expected int"),
        ("Timeout: 20", "Timeout: 20\n      VpcConfig: {SubnetIds: [a]}", "SendChatPush.VpcConfig: unknown"),
        ("!Ref ExpoUrl", "!Ref ExpoUri", "SendChatPush.Environment: refers to ExpoUri"),
        ("!Ref ExpoUrl", "!ImportValue x", "SendChatPush.Environment: Fn::ImportValue is unknown"),
        ("python3.13\n    Arch", "nodejs24.x\n    Arch", "Runtime: the local cloud knows only 'python3.13'"),
        ("QueueUrl: !Ref PushQueue", "QueueUrl: !Ref Api", "requestParameters.QueueUrl: refers to Api"),
        ("QueueUrl: !Ref PushQueue", "QueueUrl: !Ref WebhookSecret", "WebhookSecret is no queue"),
        ("QueueUrl: !Ref", "DelaySeconds: 9\n                  QueueUrl: !Ref", "DelaySeconds: unknown"),
        ("$request.body.record.id", "$request.header.x-id", "only paths in the body"),
        ("SQS-SendMessage", "Kinesis-PutRecord", "knows only 'SQS-SendMessage'"),
        ("security: [{WebhookAuthorizer", "security: [{Nobody", "'Nobody'"),
        ("/api/push/chat-message:", "/api/{proxy}:", "knows only plain paths"),
        ("POST /api/push/register:", "POST /api/push/registre:", "POST /api/push/registre: is no route"),
        ("20, ThrottlingRateLimit: 10", "20, Throttling: 10", "{proxy+}.Throttling: unknown"),
        ("rate(1 minute)", "cron(0 * * * ? *)", r"SendChatPushSweep: the local cloud knows only rate"),
        ("EventInvokeConfig: {MaximumRetryAttempts: 0,", "EventInvokeConfig: {", "knows no retries"),
        ("WindowInSeconds: 0", "WindowInSeconds: 5", "MaximumBatchingWindowInSeconds: the local cloud knows only"),
        ("Queue: !GetAtt PushQueue.Arn", "Queue: !GetAtt Pushqueue.Arn", "Pushqueue.Arn"),
        ("Type: AWS::Logs::LogGroup", "Type: AWS::SNS::Topic", "the local cloud has no AWS::SNS::Topic"),
        ("maxReceiveCount: 5", "maxReceives: 5", "maxReceiveCount: expected int"),
    ],
    ids=lambda text: text[:30],
)
def test_what_the_local_cloud_does_not_know_is_an_error_that_names_the_place(
    tmp_path: Path, correct: str, wrong: str, message: str
) -> None:
    text = (PROJECT / "template.yaml").read_text()
    assert correct in text
    (tmp_path / "template.yaml").write_text(text.replace(correct, wrong))
    with pytest.raises(TemplateError, match=re.escape(message)):
        read_template(tmp_path / "template.yaml", PARAMETERS, ENDPOINT)


def test_a_route_to_a_function_is_read(tmp_path: Path) -> None:
    text = (PROJECT / "template.yaml").read_text()
    event = {"Type": "HttpApi", "Properties": {"ApiId": {"Ref": "Api"}, "Method": "get", "Path": "/sent"}}
    text = text.replace("      Events:\n", f"      Events:\n        Sent: {json.dumps(event)}\n", 1)
    (tmp_path / "template.yaml").write_text(text)
    template = read_template(tmp_path / "template.yaml", PARAMETERS, ENDPOINT)
    routes = {(route.method, route.path): route for route in template.routes}
    assert routes["GET", "/sent"].integration == LambdaIntegration("SendChatPush")
    assert routes["GET", "/sent"].authorizer is None
