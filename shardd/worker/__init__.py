"""One process per shard: owns its devices' clients and the shard's journal."""
