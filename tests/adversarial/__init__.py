"""Hostile input: a malicious producer, and damaged files.

`tests.adversarial.moves` defines what the producer does, and `test_producer` runs it against a daemon.
"""
