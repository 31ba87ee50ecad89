-- Applied at the end of every migration run: what devices may name as their transport, as this release defines it.
INSERT INTO shardd.transports (name) SELECT unnest(%(transports)s::text[]) ON CONFLICT DO NOTHING;
