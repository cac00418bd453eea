"""What runs in AWS: the template as CloudFormation reads it, and each of its resources as a part that runs here."""
