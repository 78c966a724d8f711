"""The door of Open Inference over gRPC, on a port of its own; made only where `server.grpc_port` is set."""
