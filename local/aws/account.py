"""The AWS account that the local cloud plays. Apart from what reads the template, which takes seconds to import."""

REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's
STACK = "local"
