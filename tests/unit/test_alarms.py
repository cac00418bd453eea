"""Alarms, dashboard and access log: they look at metrics that exist, are heard, and say no secret."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_push.observability import DIMENSIONS, UNITS

from local.aws.cloudformation import translate
from tests.stack import TEMPLATE, Resources, assert_broken, changed, properties
from tests.vocabulary import COUNTED, DIVIDED_METRICS, METRICS

NAMESPACE = {"Fn::Sub": "ChatPush/${AWS::StackName}"}

# Rows that were ended for their age: they say nothing of whether pushes are healthy.
NOT_SHOWN = {"PrunedDevicesDeleted", "PrunedDevicesDeactivated", "PrunedJobsDeleted", "PrunedPresenceOffline"}

# Of AWS: name of the metric, and the dimension whose value is a resource of this template.
OF_AWS = {
    "AWS/ApiGateway": ({"Count", "Latency", "4xx", "5xx"}, "ApiId"),
    "AWS/Lambda": ({"Errors", "Throttles", "Duration"}, "FunctionName"),
    "AWS/SQS": (
        {
            "ApproximateAgeOfOldestMessage",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesVisible",
        },
        "QueueName",
    ),
}


# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html, as far as they say
# nothing of a person.
HTTP_API_VARIABLES = {
    "authorizer.error",
    "awsEndpointRequestId",
    "dataProcessed",
    "error.message",
    "error.responseType",
    "integration.error",
    "integration.integrationStatus",
    "integration.latency",
    "integration.requestId",
    "integration.status",
    "integrationErrorMessage",
    "integrationLatency",
    "integrationStatus",
    "requestId",
    "requestTime",
    "requestTimeEpoch",
    "responseLatency",
    "responseLength",
    "routeKey",
    "status",
}


@pytest.fixture(scope="module")
def resources() -> Resources:
    resources: Resources = translate(TEMPLATE)["Resources"]
    return resources


def alarms(resources: Resources) -> dict[str, dict[str, Any]]:
    return properties(resources, "CloudWatch::Alarm")


def metrics_of(alarm: dict[str, Any]) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Namespace, name and dimensions of each metric of an alarm."""
    metrics = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]
    for metric in metrics or [alarm]:
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
        yield metric["Namespace"], metric["MetricName"], dimensions


def dashboard(resources: Resources) -> list[dict[str, Any]]:
    """The widgets; what CloudFormation fills in stands there as ${name}."""
    [board] = properties(resources, "CloudWatch::Dashboard").values()
    widgets: list[dict[str, Any]] = json.loads(board["DashboardBody"]["Fn::Sub"])["widgets"]
    return widgets


def rows(widget: dict[str, Any]) -> Iterator[list[str]]:
    """Namespace, name, dimension and value of each metric; "." is that of the row above, "..." are all of them."""
    above: list[str] = []
    for row in widget["properties"]["metrics"]:
        names = [name for name in row if isinstance(name, str)]
        if names == ["..."]:
            names = above
        if names:
            above = [old if new == "." else new for new, old in zip(names, above or names, strict=True)]
            yield above


# The vocabulary


def test_every_metric_of_the_vocabulary_is_counted_by_some_function(resources: Resources) -> None:
    services = {
        function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
        for function in properties(resources, "Lambda::Function").values()
    }
    assert COUNTED.keys() == services
    assert frozenset[str]().union(*COUNTED.values()) == METRICS | DIVIDED_METRICS
    assert DIMENSIONS.keys() == DIVIDED_METRICS


# Alarms


def test_there_is_an_alarm_for_each_way_to_fail(resources: Resources) -> None:
    assert alarms(resources).keys() == {
        "CleanupMissedAlarm",
        "ConfigurationFaultAlarm",
        "DeadLettersAlarm",
        "DeviceDeactivationHeldAlarm",
        "FunctionErrorsAlarm",
        "GatewayErrorsAlarm",
        "InsertToAcceptAlarm",
        "QueueAgeAlarm",
        "ScheduleDeadLettersAlarm",
        "SweepMissedAlarm",
        "WebhookRefusedAlarm",
    }


def test_an_alarm_says_what_it_means_and_where_to_read_on(resources: Resources) -> None:
    for name, alarm in alarms(resources).items():
        meaning, where = alarm["AlarmDescription"].rsplit(" ", 1)
        assert meaning.endswith(".")
        assert where == f"docs/operate.md#{name.lower()}"


def test_an_alarm_is_heard(resources: Resources) -> None:
    for alarm in alarms(resources).values():
        assert alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}]
        assert alarm.get("ActionsEnabled", True)


def test_cloudwatch_may_publish_to_the_encrypted_topic(resources: Resources) -> None:
    """It may not use alias/aws/sns: every alarm would be lost, with a line in its history alone."""
    [topic] = properties(resources, "SNS::Topic").values()
    assert topic["KmsMasterKeyId"] == {"Ref": "AlarmKey"}
    key = resources["AlarmKey"]["Properties"]
    [policy] = properties(resources, "SNS::TopicPolicy").values()
    assert policy["Topics"] == [{"Ref": "AlarmTopic"}]
    [publish] = policy["PolicyDocument"]["Statement"]
    [use_of_key] = [
        statement
        for statement in key["KeyPolicy"]["Statement"]
        if statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    ]
    assert publish["Principal"] == use_of_key["Principal"]
    assert publish["Action"] == "sns:Publish"
    assert publish["Resource"] == {"Ref": "AlarmTopic"}
    assert set(use_of_key["Action"]) == {"kms:Decrypt", "kms:GenerateDataKey*"}
    for statement in (publish, use_of_key):
        assert statement["Effect"] == "Allow"
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_a_refused_webhook_is_an_alarm_only_if_it_goes_on(resources: Resources) -> None:
    """The doctor is refused once in each examination. API Gateway keeps a refusal for 300 s: one secret counts once."""
    alarm = alarms(resources)["WebhookRefusedAlarm"]
    assert (alarm["MetricName"], alarm["Dimensions"][0]["Value"]) == ("WebhookRefused", "authorize_webhook")
    [api] = properties(resources, "ApiGatewayV2::Api").values()
    [scheme] = api["Body"]["components"]["securitySchemes"].values()
    assert alarm["Period"] >= scheme["x-amazon-apigateway-authorizer"]["authorizerResultTtlInSeconds"]
    assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (0, "GreaterThanThreshold")
    assert alarm["EvaluationPeriods"] == alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"]) == 3


def test_silence_is_an_alarm_where_something_should_have_run(resources: Resources) -> None:
    breaching = {name for name, alarm in alarms(resources).items() if alarm["TreatMissingData"] == "breaching"}
    assert breaching == {"CleanupMissedAlarm", "SweepMissedAlarm"}
    others = {alarm["TreatMissingData"] for name, alarm in alarms(resources).items() if name not in breaching}
    assert others == {"notBreaching"}


def test_an_alarm_on_what_should_run_waits_longer_than_its_schedule(resources: Resources) -> None:
    for name, seconds in (("SweepMissedAlarm", 60), ("CleanupMissedAlarm", 900)):
        alarm = alarms(resources)[name]
        assert alarm["Period"] * alarm["EvaluationPeriods"] >= 3 * seconds


def test_every_queue_of_dead_letters_is_watched(resources: Resources) -> None:
    watched = {
        alarm["Dimensions"][0]["Value"]["Fn::GetAtt"][0]
        for alarm in alarms(resources).values()
        if alarm.get("MetricName") == "ApproximateNumberOfMessagesVisible"
        and (alarm["Statistic"], alarm["Threshold"]) == ("Maximum", 0)
    }
    assert watched == {name for name in properties(resources, "SQS::Queue") if name.endswith("DeadLetters")}


def test_errors_and_throttles_of_every_function_are_watched(resources: Resources) -> None:
    watched = {
        (name, dimensions["FunctionName"]["Ref"])
        for _, name, dimensions in metrics_of(alarms(resources)["FunctionErrorsAlarm"])
    }
    functions = properties(resources, "Lambda::Function")
    assert watched == {(name, function) for name in ("Errors", "Throttles") for function in functions}


def test_a_fault_of_the_configuration_is_watched_wherever_it_is_counted(resources: Resources) -> None:
    watched = {
        (name, dimensions["service"])
        for _, name, dimensions in metrics_of(alarms(resources)["ConfigurationFaultAlarm"])
    }
    faults = ("ConfigurationFault", "SecretUnavailable")
    assert watched == {(name, service) for service in COUNTED for name in faults if name in COUNTED[service]}


def test_alarms_look_at_metrics_that_there_are(resources: Resources) -> None:
    for alarm in alarms(resources).values():
        for namespace, name, dimensions in metrics_of(alarm):
            if namespace == NAMESPACE:
                assert dimensions.keys() == {"service"}
                assert name in COUNTED[dimensions["service"]] & METRICS
            else:
                names, dimension = OF_AWS[namespace]
                assert name in names
                assert dimensions.keys() == {dimension}


# The dashboard


def test_the_dashboard_shows_metrics_that_there_are(resources: Resources) -> None:
    for widget in dashboard(resources):
        for namespace, name, dimension, value in rows(widget) if widget["type"] == "metric" else ():
            if namespace == NAMESPACE["Fn::Sub"]:
                assert dimension == "service"
                assert name in COUNTED[value] & METRICS
            else:
                names, expected = OF_AWS[namespace]
                assert name in names
                assert dimension == expected
                assert re.fullmatch(r"\${(\w+)(\.QueueName)?}", value)
    searched = re.findall(
        r"SEARCH\('{\"([^\"]+)\",service,(\w+)} MetricName=\"(\w+)\"', 'Sum', 300\)",
        "\n".join(str(row[0].get("expression")) for row in _expressions(resources)),
    )
    assert set(searched) == {(NAMESPACE["Fn::Sub"], dimension, name) for name, dimension in DIMENSIONS.items()}
    assert len(searched) == len(_expressions(resources))


def _expressions(resources: Resources) -> list[list[dict[str, str]]]:
    return [
        row
        for widget in dashboard(resources)
        for row in widget["properties"].get("metrics", [])
        if isinstance(row[0], dict) and "expression" in row[0]
    ]


def test_the_dashboard_leaves_nothing_out_that_is_counted(resources: Resources) -> None:
    shown = {
        (value, name)
        for widget in dashboard(resources)
        if widget["type"] == "metric"
        for namespace, name, _, value in rows(widget)
        if namespace == NAMESPACE["Fn::Sub"]
    }
    assert shown == {(service, name) for service, names in COUNTED.items() for name in names & METRICS - NOT_SHOWN}


def test_what_people_notice_comes_first_then_the_alarms(resources: Resources) -> None:
    titles = [widget["properties"]["title"] for widget in dashboard(resources)]
    assert titles[:5] == [
        "Sent",
        "Not sent: skipped, by reason",
        "Not sent: failed, by code",
        "Insert to accept, ms",
        "Alarms",
    ]
    shown = set(re.findall(r"\${(\w+)\.Arn}", json.dumps(dashboard(resources)[4])))
    assert shown == alarms(resources).keys()


def test_latencies_are_percentiles_and_counts_are_sums(resources: Resources) -> None:
    for alarm in alarms(resources).values():
        statistic = {query["MetricStat"]["Stat"] for query in alarm.get("Metrics", []) if "MetricStat" in query}
        statistic = statistic or {alarm.get("ExtendedStatistic", alarm.get("Statistic"))}
        for namespace, name, _ in metrics_of(alarm):
            if namespace == NAMESPACE:
                assert statistic == ({"p99"} if name in UNITS else {"Sum"})
    for widget in dashboard(resources):
        for namespace, name, *_ in rows(widget) if widget["type"] == "metric" else ():
            if namespace == NAMESPACE["Fn::Sub"]:
                assert widget["properties"]["title"].endswith(", ms") == (name in UNITS)
                assert widget["properties"]["stat"] == ("p50" if name in UNITS else "Sum")


# The access log of the API


def test_the_access_log_holds_nothing_that_a_caller_sent_but_the_route(resources: Resources) -> None:
    """Neither address nor agent of a person either; the function's log knows who it was by the request's id."""
    [stage] = properties(resources, "ApiGatewayV2::Stage").values()
    fields = json.loads(stage["AccessLogSettings"]["Format"])
    assert {value.removeprefix("$context.") for value in fields.values()} == {
        "authorizer.error",
        "error.message",
        "integrationErrorMessage",
        "integrationLatency",
        "integrationStatus",
        "requestId",
        "requestTimeEpoch",
        "responseLatency",
        "routeKey",
        "status",
    }
    group = stage["AccessLogSettings"]["DestinationArn"]["Fn::GetAtt"][0]
    assert resources[group]["Properties"]["RetentionInDays"] == 30


def test_the_access_log_asks_for_variables_that_http_apis_have(resources: Resources) -> None:
    """Those of REST and WebSocket APIs, such as authorizer.status, are "-" there."""
    [stage] = properties(resources, "ApiGatewayV2::Stage").values()
    asked = re.findall(r"\$context\.([\w.]+)", stage["AccessLogSettings"]["Format"])
    assert set(asked) <= HTTP_API_VARIABLES


# Each rule, broken once


@pytest.mark.parametrize(
    ("correct", "wrong", "rule"),
    [
        (
            "POWERTOOLS_SERVICE_NAME: send_chat_push",
            "POWERTOOLS_SERVICE_NAME: sender",
            test_every_metric_of_the_vocabulary_is_counted_by_some_function,
        ),
        ("  SweepMissedAlarm:", "  SweepAlarm:", test_there_is_an_alarm_for_each_way_to_fail),
        ("#queueagealarm", "#queue-age", test_an_alarm_says_what_it_means_and_where_to_read_on),
        ("AlarmActions: [!Ref AlarmTopic]", "AlarmActions: []", test_an_alarm_is_heard),
        ("!Ref AlarmKey", "alias/aws/sns", test_cloudwatch_may_publish_to_the_encrypted_topic),
        ("kms:GenerateDataKey*", "kms:Encrypt", test_cloudwatch_may_publish_to_the_encrypted_topic),
        (
            "TreatMissingData: breaching",
            "TreatMissingData: ignore",
            test_silence_is_an_alarm_where_something_should_have_run,
        ),
        ("Period: 900", "Period: 600", test_an_alarm_on_what_should_run_waits_longer_than_its_schedule),
        (
            "MetricName: ApproximateNumberOfMessagesVisible",
            "MetricName: NumberOfMessagesSent",
            test_every_queue_of_dead_letters_is_watched,
        ),
        ("{MetricName: Throttles,", "{MetricName: Errors,", test_errors_and_throttles_of_every_function_are_watched),
        (
            "Value: authorize_webhook}",
            "Value: send_chat_push}",
            test_a_fault_of_the_configuration_is_watched_wherever_it_is_counted,
        ),
        ("MetricName: InsertToAccept", "MetricName: Latency", test_alarms_look_at_metrics_that_there_are),
        (
            "MetricName: DeviceDeactivationHeld",
            "MetricName: LeaseLost",  # which another function counts
            test_alarms_look_at_metrics_that_there_are,
        ),
        (
            "MetricName: DeviceDeactivationHeld",
            "MetricName: PushFailed",  # which is counted by code only
            test_alarms_look_at_metrics_that_there_are,
        ),
        ('"LeaseLost"', '"LostLease"', test_the_dashboard_shows_metrics_that_there_are),
        (",service,code}", ",service,reason}", test_the_dashboard_shows_metrics_that_there_are),
        ("ExtendedStatistic: p99", "Statistic: Sum", test_latencies_are_percentiles_and_counts_are_sums),
        ("Insert to accept, ms", "Insert to accept", test_latencies_are_percentiles_and_counts_are_sums),
        ('"LeaseLost"', '"LeaseExpired"', test_the_dashboard_leaves_nothing_out_that_is_counted),
        ('"${SweepMissedAlarm.Arn}", ', "", test_what_people_notice_comes_first_then_the_alarms),
        (
            "EvaluationPeriods: 3\n      Threshold: 0",
            "EvaluationPeriods: 1\n      Threshold: 0",
            test_a_refused_webhook_is_an_alarm_only_if_it_goes_on,
        ),
        (
            "$context.integrationStatus",
            "$context.authorizer.status",
            test_the_access_log_asks_for_variables_that_http_apis_have,
        ),
        (
            "$context.responseLatency",
            "$context.identity.sourceIp",
            test_the_access_log_holds_nothing_that_a_caller_sent_but_the_route,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:40],
)
def test_a_template_that_breaks_a_rule_fails_it(tmp_path: Path, correct: str, wrong: str, rule: Any) -> None:
    assert_broken(rule, resources=translate(changed(tmp_path, correct, wrong))["Resources"])
