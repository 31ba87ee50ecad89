"""What happens on its way to programs: keeping the outbox bounded, and webhooks."""
