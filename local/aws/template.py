"""Reads template.yaml (as `sam build` leaves it): what the local cloud has to run."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from local.aws.cloudformation import Properties, Stack, TemplateError, translate
from local.types import Json


@dataclass(frozen=True)
class Function:
    """A Lambda function; its folders are those `sam build` made."""

    name: str
    folder: Path
    handler: str
    timeout: timedelta
    memory_megabytes: int
    environment: Mapping[str, str]
    layers: tuple[Path, ...]


@dataclass(frozen=True)
class Redrive:
    """A message that was received `max_receive_count` times goes to `queue`."""

    queue: str
    max_receive_count: int


@dataclass(frozen=True)
class Queue:
    """An SQS queue."""

    name: str
    arn: str
    url: str
    visibility_timeout: timedelta
    retention: timedelta
    redrive: Redrive | None


@dataclass(frozen=True)
class GeneratedString:
    """A secret's first value: `template`, with a random string of `length` characters added as `key`."""

    template: Mapping[str, Json]
    key: str
    length: int
    exclude_punctuation: bool


@dataclass(frozen=True)
class Secret:
    """A secret; without `generated` it is created empty."""

    name: str
    generated: GeneratedString | None


@dataclass(frozen=True)
class SqsIntegration:
    """A route that sends `message_body` (a parameter mapping such as $request.body.record.id) to a queue."""

    queue: str
    message_body: str
    status: int


@dataclass(frozen=True)
class LambdaIntegration:
    """A route that invokes a function with a payload of format 2.0."""

    function: str


@dataclass(frozen=True)
class Authorizer:
    """A Lambda authorizer (payload 2.0, simple answers): asked once in `time_to_live` per header value."""

    name: str
    function: str
    header: str
    time_to_live: timedelta


@dataclass(frozen=True)
class Route:
    """A route of the HTTP API: of one method or ANY, of one path or, if it ends in /{proxy+}, of all paths below."""

    method: str
    path: str
    integration: SqsIntegration | LambdaIntegration
    authorizer: Authorizer | None

    @property
    def key(self) -> str:
        """How API Gateway names it."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class EventSourceMapping:
    """The messages of `queue` go to `function` in batches."""

    name: str
    queue: str
    function: str
    batch_size: int
    reports_item_failures: bool
    maximum_concurrency: int = 1000  # batches at a time; Lambda's own limit unless the template sets one


@dataclass(frozen=True)
class Schedule:
    """`function` is invoked with `event` once in `period`, asynchronously and without retries of what failed.

    While the account is at its limit, the event waits until it is `maximum_event_age` old.
    """

    name: str
    function: str
    period: timedelta
    event: Json
    maximum_event_age: timedelta


@dataclass(frozen=True)
class Template:
    """What the local cloud runs; the keys are logical ids of the deployed stack."""

    functions: Mapping[str, Function]
    queues: Mapping[str, Queue]
    secrets: Mapping[str, Secret]
    routes: tuple[Route, ...]
    event_source_mappings: Mapping[str, EventSourceMapping]
    schedules: Mapping[str, Schedule]


def read_template(path: Path, parameters: Mapping[str, str], endpoint_url: str) -> Template:
    """The template at `path`, with these parameters, in a cloud whose AWS services answer at `endpoint_url`.

    Raises TemplateError for a wrong parameter, and for all that the local cloud does not support.
    """
    stack = Stack(translate(path, parameters), parameters, endpoint_url)
    for name, kind in stack.types().items():
        if kind not in _READ | _WITHOUT_LOCAL_PART:
            raise TemplateError(f"{name}: the local cloud has no {kind}")
    invocations = dict(_asynchronous(stack, p) for _, p in stack.of_type("AWS::Lambda::EventInvokeConfig"))
    routes = tuple(r for _, p in stack.of_type("AWS::ApiGatewayV2::Api") for r in _routes(stack, p))
    for _, p in stack.of_type("AWS::ApiGatewayV2::Stage"):
        _check_stage(p, {route.key for route in routes})
    return Template(
        functions={name: _function(name, p) for name, p in stack.of_type("AWS::Lambda::Function")},
        queues={name: _queue(stack, name, p) for name, p in stack.of_type("AWS::SQS::Queue")},
        secrets={name: _secret(name, p) for name, p in stack.of_type("AWS::SecretsManager::Secret")},
        routes=routes,
        event_source_mappings={
            name: _event_source_mapping(stack, name, p) for name, p in stack.of_type("AWS::Lambda::EventSourceMapping")
        },
        schedules={
            name: _schedule(stack, invocations, name, p) for name, p in stack.of_type("AWS::Scheduler::Schedule")
        },
    )


_READ = {
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Stage",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Function",
    "AWS::Lambda::LayerVersion",
    "AWS::SQS::Queue",
    "AWS::Scheduler::Schedule",
    "AWS::SecretsManager::Secret",
}

_WITHOUT_LOCAL_PART = {
    "AWS::ApiGatewayV2::ApiMapping",
    "AWS::ApiGatewayV2::DomainName",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::IAM::Role",
    "AWS::KMS::Key",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Version",
    "AWS::Logs::LogGroup",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SNS::TopicPolicy",
}


def _function(name: str, p: Properties) -> Function:
    code = p.take_properties("Code")
    p.expect("Runtime", "python3.13")
    p.ignore("Architectures", "Description", "LoggingConfig", "Role", "SnapStart", "Tags", "TracingConfig")
    function = Function(
        name=name,
        folder=Path(code.take("S3Key", str)),
        handler=p.take("Handler", str),
        timeout=timedelta(seconds=p.take("Timeout", int, 3)),
        memory_megabytes=p.take("MemorySize", int, 128),
        environment=p.take("Environment", dict, {}).get("Variables", {}),
        layers=tuple(Path(folder) for folder in p.take("Layers", list, [])),
    )
    p.end()
    return function


@dataclass(frozen=True)
class _Asynchronous:
    """How Lambda retries an asynchronous invocation that did not succeed."""

    retries: int = 2
    maximum_event_age: timedelta = timedelta(hours=6)


def _asynchronous(stack: Stack, p: Properties) -> tuple[str, _Asynchronous]:
    """A function, and the settings of its asynchronous invocations."""
    p.ignore("Qualifier")
    p.expect("DestinationConfig", None, {})
    function = stack.function_named(p.take("FunctionName", str), p.where)
    asynchronous = _Asynchronous(
        retries=p.take("MaximumRetryAttempts", int, _Asynchronous.retries),
        maximum_event_age=timedelta(seconds=p.take("MaximumEventAgeInSeconds", int, 21_600)),
    )
    p.end()
    return function, asynchronous


def _queue(stack: Stack, name: str, p: Properties) -> Queue:
    p.ignore("SqsManagedSseEnabled")
    redrive = None
    if "RedrivePolicy" in p:
        policy = p.take_properties("RedrivePolicy")
        redrive = Redrive(
            queue=stack.queue_named(policy.take("deadLetterTargetArn", str), policy.where),
            max_receive_count=policy.take("maxReceiveCount", int),
        )
        policy.end()
    queue = Queue(
        name=name,
        arn=stack.arn(name),
        url=stack.ref(name),
        visibility_timeout=timedelta(seconds=p.take("VisibilityTimeout", int, 30)),
        retention=timedelta(seconds=p.take("MessageRetentionPeriod", int, 345_600)),
        redrive=redrive,
    )
    p.end()
    return queue


def _secret(name: str, p: Properties) -> Secret:
    p.ignore("Description")
    generated = None
    if "GenerateSecretString" in p:
        how = p.take_properties("GenerateSecretString")
        generated = GeneratedString(
            template=json.loads(how.take("SecretStringTemplate", str)),
            key=how.take("GenerateStringKey", str),
            length=how.take("PasswordLength", int, 32),
            exclude_punctuation=how.take("ExcludePunctuation", bool, False),
        )
        how.end()
    p.end()
    return Secret(name, generated)


def _event_source_mapping(stack: Stack, name: str, p: Properties) -> EventSourceMapping:
    p.expect("MaximumBatchingWindowInSeconds", None, 0)
    scaling = p.take("ScalingConfig", dict, {})
    mapping = EventSourceMapping(
        name=name,
        queue=stack.queue_named(p.take("EventSourceArn", str), name),
        function=stack.function_named(p.take("FunctionName", str), name),
        batch_size=p.take("BatchSize", int, 10),
        reports_item_failures="ReportBatchItemFailures" in p.take("FunctionResponseTypes", list, []),
        maximum_concurrency=int(scaling.get("MaximumConcurrency", EventSourceMapping.maximum_concurrency)),
    )
    p.end()
    return mapping


def _schedule(stack: Stack, invocations: Mapping[str, _Asynchronous], name: str, p: Properties) -> Schedule:
    p.ignore("Description")
    p.expect("FlexibleTimeWindow", {"Mode": "OFF"})
    target = p.take_properties("Target")
    # Both are for failed deliveries, which do not happen here.
    target.ignore("RoleArn", "RetryPolicy")
    if "DeadLetterConfig" in target:
        dead_letters = target.take_properties("DeadLetterConfig")
        stack.queue_named(dead_letters.take("Arn", str), dead_letters.where)
        dead_letters.end()
    function = stack.function_named(target.take("Arn", str), name)
    asynchronous = invocations.get(function, _Asynchronous())
    schedule = Schedule(
        name=name,
        function=function,
        period=_period(p.take("ScheduleExpression", str), name),
        event=json.loads(target.take("Input", str)),
        maximum_event_age=asynchronous.maximum_event_age,
    )
    target.end()
    p.end()
    if asynchronous.retries != 0:
        raise TemplateError(f"{name}: the local cloud supports no retries of invocations (EventInvokeConfig)")
    return schedule


def _period(expression: str, where: str) -> timedelta:
    """The period of rate(1 minute), rate(2 hours) and so on."""
    rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression)
    if not rate:
        raise TemplateError(f"{where}: the local cloud supports only rate(...), not {expression}")
    return timedelta(**{f"{rate[2]}s": int(rate[1])})


def _routes(stack: Stack, p: Properties) -> list[Route]:
    p.expect("FailOnWarnings", None, True)
    body = p.take_properties("Body")
    body.ignore("info", "openapi", "tags")
    authorizers = {}
    if "components" in body:
        components = body.take_properties("components")
        schemes = components.take_properties("securitySchemes")
        authorizers = {name: _authorizer(stack, name, schemes.take_properties(name)) for name in schemes}
        components.end()
    paths = body.take_properties("paths")
    body.end()
    p.end()
    return [
        _route(stack, method, path, methods.take_properties(method), authorizers)
        for path, methods in [(path, paths.take_properties(path)) for path in paths]
        for method in methods
    ]


def _check_stage(p: Properties, route_keys: Collection[str]) -> None:
    """Checks that throttled routes exist. Throttling itself is best effort in AWS, and not done here."""
    p.ignore("AccessLogSettings", "ApiId", "StageName", "Tags")
    p.expect("AutoDeploy", True)
    limits = [p.take_properties("DefaultRouteSettings")] if "DefaultRouteSettings" in p else []
    if "RouteSettings" in p:
        settings = p.take_properties("RouteSettings")
        for key in settings:
            if key not in route_keys:
                raise settings.error(key, "is no route")
            limits.append(settings.take_properties(key))
        settings.end()
    for limit in limits:
        limit.ignore("ThrottlingBurstLimit", "ThrottlingRateLimit")
        limit.end()
    p.end()


def _authorizer(stack: Stack, name: str, p: Properties) -> Authorizer:
    p.ignore("type", "name", "in")  # for OpenAPI's sake; API Gateway reads the extension
    how = p.take_properties("x-amazon-apigateway-authorizer")
    how.expect("type", "request")
    how.expect("authorizerPayloadFormatVersion", "2.0")
    how.expect("enableSimpleResponses", True)
    sources = how.take("identitySource", list)
    header = re.fullmatch(r"\$request\.header\.([\w-]+)", sources[0]) if len(sources) == 1 else None
    if header is None:
        raise how.error("identitySource", f"the local cloud supports only a single header, not {sources}")
    authorizer = Authorizer(
        name=name,
        function=stack.function_named(how.take("authorizerUri", str), name),
        header=header[1].lower(),
        time_to_live=timedelta(seconds=how.take("authorizerResultTtlInSeconds", int, 300)),
    )
    how.end()
    p.end()
    return authorizer


def _route(stack: Stack, method: str, path: str, p: Properties, authorizers: Mapping[str, Authorizer]) -> Route:
    if "{" in path.removesuffix("/{proxy+}"):
        raise TemplateError(f"{p.where}: the local cloud supports only plain paths, and {{proxy+}} at their end")
    p.ignore("parameters", "responses")
    names = [name for requirement in p.take("security", list, []) for name in requirement]
    if len(names) > 1 or not authorizers.keys() >= set(names):
        raise p.error("security", f"{names} is not one of the authorizers {sorted(authorizers)}")
    integration = _integration(stack, p.take_properties("x-amazon-apigateway-integration"))
    p.end()
    method = "ANY" if method == "x-amazon-apigateway-any-method" else method.upper()
    return Route(method, path, integration, authorizers[names[0]] if names else None)


def _integration(stack: Stack, p: Properties) -> SqsIntegration | LambdaIntegration:
    p.expect("type", "aws_proxy")
    if "integrationSubtype" in p:
        return _sqs_integration(stack, p)
    p.expect("payloadFormatVersion", "2.0")
    p.ignore("httpMethod")
    function = stack.function_named(p.take("uri", str), p.where)
    p.end()
    return LambdaIntegration(function)


def _sqs_integration(stack: Stack, p: Properties) -> SqsIntegration:
    p.expect("integrationSubtype", "SQS-SendMessage")
    p.expect("payloadFormatVersion", "1.0")
    p.ignore("credentials")
    parameters = p.take_properties("requestParameters")
    message_body = parameters.take("MessageBody", str)
    if not re.fullmatch(r"\$request\.body(\.\w+)*", message_body):
        raise parameters.error("MessageBody", f"the local cloud supports only paths in the body, not {message_body}")
    responses = p.take("responseParameters", dict, {"200": {}})
    if responses.keys() != {"200"} or not responses["200"].keys() <= {"overwrite:statuscode"}:
        raise p.error("responseParameters", "the local cloud supports only overwrite:statuscode of 200")
    integration = SqsIntegration(
        queue=stack.queue_named(parameters.take("QueueUrl", str), p.where),
        message_body=message_body,
        status=int(responses["200"].get("overwrite:statuscode", 200)),
    )
    parameters.end()
    p.end()
    return integration
