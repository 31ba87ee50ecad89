"""`shardd job`: the state of messages, and retrying, cancelling or resolving them in bulk.

A job in flight and a sent message are never changed. A job in doubt is retried only after a warning and a yes, because its
message may then be sent twice; or a person who knows resolves it.
"""
