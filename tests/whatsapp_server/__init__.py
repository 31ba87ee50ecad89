"""A WhatsApp server for tests, on loopback, that the real neonize (whatsmeow) connects to without changes.

It implements the protocol from the bottom up: HTTP CONNECT or SOCKS5, TLS, websocket, Noise, binary XML and Signal. A test
pairs devices, sends messages both ways, injects faults, and reads what was delivered. ``README.md`` shows how, and lists
what is not implemented.

========================  ======================================================================
``launch``                starts the server in its own process
``server``                the server for use in this process
``control_client``        commands to a running server: faults, messages, waiting, bans
``faults``, ``record``    what can be injected, and what was recorded
``seed``                  writes thousands of paired devices into a store, without pairing
``client``                plain neonize in a process, and the patch that makes it trust the server
``wire``, ``crypto``      the layers below a stanza; keys and encryption
``handlers``, ``state``   the behaviour of WhatsApp, and its state
========================  ======================================================================

``launch``, ``control_client`` and ``seed`` do not load neonize. The server process does: the token dictionaries and the
protobuf classes come from the library under test. Imports are relative, so the folder can be copied under any name.
"""
