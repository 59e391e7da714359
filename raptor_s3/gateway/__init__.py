"""The self-hosted receiver, `raptor gateway` (docs/gateway.md): WireGuard in, S3 or the serverless backend out.

    command    the command line                     settings   what it says, checked
    server     sockets, clock, signals: the loop    peers      who may write what, from the peers file
    direct     collect, decide, write, answer       forward    batches to Lambda or SQS, by `batching`
    sink       what a sink is: `s3`, `null`         replies    what the backend says later, through SQS
    workers    threads for blocking AWS calls       stats      what is counted
    trouble    what AWS answers in bad hours        log_throttle, late_credentials: and what the operator sees of it

One thread runs the loop and owns all state; worker threads do nothing but AWS calls and hand results back.

Invariant: nothing that has not been authenticated reaches a receiver (direct or forward), and nothing is answered to it.
"""
