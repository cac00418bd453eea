"""The AWS account of the local cloud. Not in template.py, which takes seconds to import."""

REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's
STACK = "local"
