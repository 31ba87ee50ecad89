"""WhatsApp through neonize: clients that are refreshed when a message needs them, behind the egress gate."""
