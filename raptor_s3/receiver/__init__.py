"""What every receiver decides and says alike: `gateway` (its direct mode) and `backend` (docs/wire.md).

    policy       the document "who may write what", and the objection to one put      pure
    outcome      a final state and its JSON: S3's word, our own refusals, expiry       pure
    admission    one decoded object: allowed, and intact, or the refusal               pure
    s3_answers   PutObject's parameters, S3's answers and failures                     imports botocore.exceptions only
    s3_client    a boto3 client that sends nothing after its time                      told by the caller when that is

Invariant: what a sender is told does not depend on which receiver it asked, but for the name in front of a refusal.
"""
