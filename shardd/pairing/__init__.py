"""Linking a phone to a device, for everybody who does it: the command line and the dashboard.

**Promises.** A device keeps its number unless its operator wants another one; two devices never share one. A session that cannot
become the device's is unlinked again, so a pairing that fails leaves nothing behind. One pairing of a device at a time, on any
host.

**Failures** have a kind (`shardd.errors.PairingFailure`), for those who may not see what the operator's words say, such as the
names of other devices.

**Never:** the WhatsApp library in this process. Each pairing has a process of its own (`shardd.transports.whatsapp.oneshot`).
"""
