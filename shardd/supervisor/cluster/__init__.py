"""What nodes share: leases on shards, the claims of lost nodes, and the periodic upkeep of the database.

Promises: a shard belongs to one node at a time. A lease is good until a deadline on the monotonic clock that lies before the
moment at which another node may take it; past that, nothing is handed to a worker.

How it fails: a node that cannot renew in time drops its leases and kills its workers (`fence`). Claims of a node that is gone
for longer than two lease periods are called `in_doubt`; its journals may still resolve them when it comes back. A node
whose state folder is gone takes no shards; after a lease period it drains and gives its own to the others, until it is back.

Never: waits for another node, or takes a lease that may still be in use.
"""
