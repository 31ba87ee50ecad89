"""A WhatsApp server of our own, on loopback, for testing the real neonize end to end.

It speaks the wire protocol: HTTP CONNECT or SOCKS5, TLS, websocket, Noise, binary XML nodes, Signal. Nothing of the
client is replaced; only its trust roots are, in the memory of the client's own process (``client_site``).

Importing this package, ``control_client`` or ``seed`` does not load neonize; the server process itself does, because
the token dictionaries and the protobuf classes come from the library under test.
"""
