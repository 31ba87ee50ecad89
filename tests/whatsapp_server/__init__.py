"""A WhatsApp server of our own, on loopback, for testing the real neonize end to end.

It speaks the wire protocol: HTTP CONNECT or SOCKS5, TLS, websocket, Noise, binary XML nodes, Signal. Nothing of the
client is replaced; only its trust roots are, in the memory of the client's own process (``client_site``).

A connection climbs through ``server`` (``proxy``, ``tls``), ``connection`` (``frames``, ``noise``, ``codec``), and then
``stanzas``, ``messages`` and ``pairing``, which share the state in ``network``. Tests steer it through ``control_client``,
and start it and its clients with ``launch`` and ``client_process``, or with the fixtures of ``tests.fixtures.whatsapp``::

    async def test_a_text_arrives(whatsapp, plain_device):
        await whatsapp.async_control.fault("drop", "message", accepted=True)
        await plain_device.send("62812…", "hello")
        [message] = await whatsapp.async_control.wait_messages(text="hello")
        assert [arrival.outcome for arrival in message.arrivals] == ["drop", "ack"]

Importing this package, ``control_client``, ``launch`` or ``seed`` does not load neonize; the server process itself does,
because the token dictionaries and the protobuf classes come from the library under test.
"""
