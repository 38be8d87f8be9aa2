"""The gateway: the only part of guard, beside its client, that speaks gRPC."""
