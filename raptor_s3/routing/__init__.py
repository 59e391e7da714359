"""Which way a put goes, and how botocore is told: settings (config, profile), policy, breaker, hooks, response, journal.

Importing this package imports none of its modules: what the AWS CLI and the `raptor` command don't need, they don't pay
for.
"""
