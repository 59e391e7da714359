"""The serverless receiver on AWS: thin Lambda handlers over a few modules (docs/backend.md).

    handlers     ingestor  completer  encoder                  parse, call, answer with partial failures
    decisions    authorize (who may write what)  delivery (one decoded object to one final state)
    AWS          inflight (all DynamoDB)  objects (all S3)  replies (SNS, or inline)
    plain        transfers (identity, bounds)  arrivals (events to symbols)  settings  runtime (clients, once per sandbox)
    local        the same template on this machine

Nothing here decrypts: the UDP gateway in front does, and its `PeerKey` is the identity that everything is keyed by.
"""
