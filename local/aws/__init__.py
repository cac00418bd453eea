"""What runs in AWS: the template as CloudFormation reads it, and a local part for each kind of resource."""
