"""Wablas, Whacenter and the Cloud API on loopback: their requests and answers, a record, and misbehaviour on command.

It implements HTTP on plain sockets, because no HTTP library can reset a connection before or after reading the request, truncate
an answer, or send an endless one.
"""
