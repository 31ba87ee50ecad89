"""WhatsApp through neonize, the Python binding of whatsmeow.

`transport` composes the rooms: `clients` (open on demand, one per device), `messages` (what is sent, to whom, what answers
mean, what people write back), `media` (files), `links` (previews of links), `sessions` (the store of keys), `linking` (pairing
and unlinking phones).
`oneshot` runs what must load the library outside a worker in a child process.

The library is Go code that can hang for ever, panic the whole process, and reconnect without being asked. So all its bytes
pass the gate (`shardd.transports.egress`), every call has a deadline, and its writes to global state are serialised
(`clients.library`). It reports success for a message that nobody can read; `messages.copies` notices.
"""
