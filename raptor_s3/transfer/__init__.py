"""One object from one end to the other (docs/transport.md), sans-IO: state machines that take `now`.

    outgoing     one put at the sender: first flight, repair on silence, deadline; `block_flight`, `lone`
    sender       all puts of one endpoint: whose turn it is, pacing, feedback
    congestion   how fast the path delivers          pacing   when the next datagrams may leave
    rtt          round-trip estimate and timers      loss     loss estimate and the repair that it calls for
    incoming     the receiver: collects symbols, decodes, answers

`now: float` is in seconds on any clock that never goes back; both ends keep their own.
"""
