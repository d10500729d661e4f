"""gRPC: the only place that knows messages."""
