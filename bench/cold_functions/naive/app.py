"""Imports at its top all packages that a backend for chat pushes may need, and does nothing."""

from typing import Any

import boto3
import exponent_server_sdk
import httpx
import jwt
import pydantic
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.batch import BatchProcessor
from aws_lambda_powertools.utilities.data_classes import SQSEvent

import supabase

logger = Logger(service="naive")
IMPORTED = (
    *(boto3, exponent_server_sdk, httpx, jwt, pydantic, supabase),
    *(APIGatewayHttpResolver, BatchProcessor, Metrics, SQSEvent, parameters),
)


def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    return {}
