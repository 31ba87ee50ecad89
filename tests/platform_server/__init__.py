"""Wablas, Whacenter and the Cloud API on the loopback interface: their shapes, a record of what they read, and misbehaviour on
command.

It speaks HTTP by itself, over plain sockets, because it must be able to do what no HTTP library does: reset a connection before
or after it has read the request, cut an answer in the middle, or never end one.
"""
