"""The messages of Open Inference over gRPC, as protoc makes them of `open_inference.proto`: `make protos` writes them anew.

They have a descriptor pool of their own: another program's messages of the same names (a client of the protocol, in one process
with us) would clash with them in the pool that all share.
"""
