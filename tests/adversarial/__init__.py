"""People and disks that want shardd to fail: a producer that knows no manners, and files that were damaged.

`tests.adversarial.moves` says what a hostile producer does, `test_producer` lets it loose on a running daemon.
"""
