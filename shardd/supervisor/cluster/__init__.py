"""What nodes share: leases on shards, the claims of lost nodes, and the upkeep of the database; and this node's state folder.

Promises: a shard belongs to one node at a time. A lease is good until a deadline on the monotonic clock, which lies before the
moment at which another node may take it; past that, no job is handed to a worker. A node is its state folder: no two supervisors
run as one node, whatever their names are.

How it fails: a node that cannot renew in time drops its leases and kills its workers (`fence`). Claims of a node that has been
gone for longer than two lease periods become `in_doubt`; its journals resolve them when it is back. A supervisor that would be a
node that is running is refused; one that finds that another took over while it was silent ends. A node without its
state folder takes no shards; after a lease period it drains and gives its own to other nodes, until the folder is back.

Never: waits for another node, or takes a lease that may still be in use.
"""
