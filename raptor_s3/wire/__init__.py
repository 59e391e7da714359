"""The bytes that travel (docs/wire.md): one module and one parser per message.

    datagram          one symbol, or a cancel, of one object          sender -> receiver
    put_header        PutObject parameters in front of the body       inside the coded object
    transfer_state    progress, confirmation, failure                 receiver -> sender
    gateway_message   the UDP gateway's JSON around datagrams         gateway <-> backend

Invariant: every input either parses or raises MalformedPacket, before anything is allocated in proportion to a number in it.
"""
