"""The CloudFormation template of template.yaml, made by AWS's own SAM translator, with references as local values.

Properties are taken one by one. A resource type, property or intrinsic function that the local cloud does not support
is an error and never ignored: otherwise a template could work here and fail in AWS.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from boto3.session import Session
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from local.aws.account import ACCOUNT, REGION, STACK
from local.types import Json


class TemplateError(Exception):
    """The template is wrong, or uses what the local cloud does not support; the message names the place."""


def translate(path: Path, parameters: Mapping[str, str] | None = None) -> dict[str, Json]:
    """The CloudFormation template that SAM makes of a SAM template for parameters; an artifact's S3Key is its folder.

    Raises TemplateError with all that SAM finds wrong.
    """
    document = yaml_parse(path.read_text())
    for resource in document["Resources"].values():
        for key in ("CodeUri", "ContentUri"):
            if key in resource.get("Properties", {}):
                folder = path.parent / resource["Properties"][key]
                resource["Properties"][key] = {"Bucket": "local", "Key": str(folder)}
    translator = Translator({}, Parser(), boto_session=Session(region_name=REGION))
    try:
        translated: dict[str, Json] = translator.translate(document, parameter_values=dict(parameters or {}))
    except InvalidDocumentException as error:
        raise TemplateError("\n".join(cause.message for cause in error.causes)) from error
    return translated


class Properties:
    """The properties of one resource. Each has to be taken, expected or ignored by its name before `end`."""

    def __init__(self, where: str, properties: Mapping[str, Json], values: Mapping[str, str]) -> None:
        self.where = where
        self._left = dict(properties)
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._left))

    def take[T](self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value of `key` with references resolved; TemplateError if it is missing or not of `kind`."""
        if key not in self._left and default is not None:
            return default
        value = self._resolve(self._left.pop(key, None), key)
        if not isinstance(value, kind):
            raise self.error(key, f"expected {kind.__name__}, not {value!r}")
        return value

    def take_properties(self, key: str) -> "Properties":
        """The object at `key`, to be taken apart in the same way."""
        value = self._left.pop(key, None)
        if not isinstance(value, dict):
            raise self.error(key, f"expected an object, not {value!r}")
        return Properties(f"{self.where}.{key}", value, self._values)

    def expect(self, key: str, *allowed: Json) -> None:
        """Takes a value that must be one of these (None: absent)."""
        value = self._resolve(self._left.pop(key, None), key)
        if value not in allowed:
            known = " or ".join(map(repr, allowed))
            raise self.error(key, f"the local cloud supports only {known}, not {value!r}")

    def ignore(self, *keys: str) -> None:
        """Skips properties that have no effect on one machine."""
        for key in keys:
            self._left.pop(key, None)

    def end(self) -> None:
        """Raises TemplateError if anything is left."""
        for key in self._left:
            raise self.error(key, "not supported by the local cloud")

    def error(self, key: str, what: str) -> TemplateError:
        """The error to raise for the value of `key`."""
        return TemplateError(f"{self.where}.{key}: {what}")

    def _resolve(self, value: Json, key: str) -> Json:
        match value:
            case {"Ref": name}:
                return self._value_of(name, key)
            case {"Fn::GetAtt": [name, attribute]}:
                return self._value_of(f"{name}.{attribute}", key)
            case {"Fn::Sub": [text, variables]}:
                values = {name: self._resolve(variable, key) for name, variable in variables.items()}
                return re.sub(r"\${([^}!]+)}", lambda m: values.get(m[1]) or self._value_of(m[1], key), text)
            case {"Fn::Sub": text}:
                return self._resolve({"Fn::Sub": [text, {}]}, key)
            case dict() if any(name.startswith("Fn::") for name in value):
                raise self.error(key, f"{next(iter(value))} is not supported by the local cloud")
            case dict():
                return {name: self._resolve(item, key) for name, item in value.items()}
            case list():
                return [self._resolve(item, key) for item in value]
            case _:
                return value

    def _value_of(self, name: str, key: str) -> str:
        if name not in self._values:
            raise self.error(key, f"refers to {name}, which has no value in the local cloud")
        return self._values[name]


class Stack:
    """The resources of a translated template with these parameters, in a cloud answering at `endpoint_url`."""

    def __init__(self, translated: Json, parameters: Mapping[str, str], endpoint_url: str) -> None:
        self._resources: Mapping[str, Json] = translated["Resources"]
        self._values = {"AWS::AccountId": ACCOUNT, "AWS::Partition": "aws", "AWS::Region": REGION}
        self._values["AWS::StackName"] = STACK
        self._values |= _parameter_values(translated.get("Parameters", {}), parameters)
        _check_rules(translated.get("Rules", {}), self._values)
        for name, resource in self._resources.items():
            self._values |= _reference_values(name, resource, endpoint_url)

    def types(self) -> dict[str, str]:
        """The type of each resource, by logical id."""
        return {name: resource["Type"] for name, resource in self._resources.items()}

    def of_type(self, kind: str) -> Iterator[tuple[str, Properties]]:
        """Logical id and properties of each resource of a type."""
        for name, resource in self._resources.items():
            if resource["Type"] == kind:
                if "Condition" in resource:
                    raise TemplateError(f"{name}: a {kind} on a condition is not supported by the local cloud")
                yield name, Properties(name, resource.get("Properties", {}), self._values)

    def ref(self, name: str) -> str:
        """What `Ref` gives for a resource."""
        return self._values[name]

    def arn(self, name: str) -> str:
        """The ARN of a function or queue."""
        return self._values[f"{name}.Arn"]

    def queue_named(self, reference: str, where: str) -> str:
        """The logical id of the queue with this ARN or URL."""
        for name, _ in self.of_type("AWS::SQS::Queue"):
            if reference in (self.ref(name), self.arn(name)):
                return name
        raise TemplateError(f"{where}: {reference} is no queue of this template")

    def function_named(self, reference: str, where: str) -> str:
        """The logical id of the function that a name, an ARN (also of its alias) or a URI refers to."""
        arn = re.search(r":function:(\w+)", reference)
        name = arn[1] if arn else reference
        if self.types().get(name) != "AWS::Lambda::Function":
            raise TemplateError(f"{where}: {reference} is no function of this template")
        return name


def _parameter_values(declared: Mapping[str, Json], given: Mapping[str, str]) -> dict[str, str]:
    if unknown := given.keys() - declared.keys():
        raise TemplateError(f"no such parameter: {', '.join(sorted(unknown))}")
    values: dict[str, str] = {}
    for name, declaration in declared.items():
        if name not in given and "Default" not in declaration:
            raise TemplateError(f"parameter {name} is missing: {declaration['Description']}")
        value = str(given.get(name, declaration.get("Default")))
        if not _fits(value, declaration):
            raise TemplateError(f"parameter {name} {declaration['ConstraintDescription']}, not {value!r}")
        values[name] = value
    return values


def _fits(value: str, declaration: Mapping[str, Json]) -> bool:
    """Whether CloudFormation would take `value` for the parameter."""
    match declaration:
        case {"Type": "String", "AllowedPattern": pattern}:
            fits = re.fullmatch(pattern, value) is not None
            return fits and len(value) <= declaration.get("MaxLength", len(value))
        case {"Type": "String", "AllowedValues": values}:
            return value in values
        case {"Type": "Number", "MinValue": minimum, "MaxValue": maximum}:
            return re.fullmatch("[0-9]+", value) is not None and minimum <= int(value) <= maximum
        case _:
            raise TemplateError(f"the local cloud supports no parameter such as {dict(declaration)}")


def _check_rules(rules: Mapping[str, Json], values: Mapping[str, str]) -> None:
    """Raises TemplateError for parameters that contradict each other, with the template's own message."""
    for name, rule in rules.items():
        if "RuleCondition" not in rule or _holds(rule["RuleCondition"], values, name):
            for assertion in rule["Assertions"]:
                if not _holds(assertion["Assert"], values, name):
                    raise TemplateError(assertion["AssertDescription"])


def _holds(condition: Json, values: Mapping[str, str], where: str) -> bool:
    """Whether a condition of a rule is true for these parameters."""
    match condition:
        case {"Fn::Not": [negated]}:
            return not _holds(negated, values, where)
        case {"Fn::Equals": [{"Ref": parameter}, str(value)]}:
            return values.get(parameter) == value
        case _:
            raise TemplateError(f"{where}: the local cloud supports no condition such as {condition}")


def _reference_values(name: str, resource: Json, endpoint_url: str) -> dict[str, str]:
    """What `Ref` (key: the name) and `Fn::GetAtt` (key: name.attribute) give for a resource."""
    match resource:
        case {"Type": "AWS::Lambda::Function"}:
            return {name: name, f"{name}.Arn": _arn("lambda", f"function:{name}")}
        case {"Type": "AWS::Lambda::Alias", "Properties": {"FunctionName": {"Ref": function}, "Name": alias}}:
            return {name: _arn("lambda", f"function:{function}:{alias}")}
        case {"Type": "AWS::Lambda::LayerVersion", "Properties": {"Content": {"S3Key": folder}}}:
            return {name: folder}  # the folder and no ARN: references to a layer need its files
        case {"Type": "AWS::SQS::Queue"}:
            return {name: f"{endpoint_url}/{ACCOUNT}/{name}", f"{name}.Arn": _arn("sqs", name)}
        case {"Type": "AWS::SecretsManager::Secret"}:
            return {name: name}  # the name and no ARN, which has a random part: Secrets Manager accepts both
        case _:
            return {}


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"
