-- Versions of the WhatsApp library that WhatsApp refuses: one row for all devices.

CREATE TABLE shardd.library_refusals (
    library   text PRIMARY KEY,                    -- its name and version, such as neonize 0.5.2
    node_id   text NOT NULL,                       -- that found it out
    node      text NOT NULL,                       -- its name, for people
    since     timestamptz NOT NULL,
    probed_at timestamptz NOT NULL DEFAULT now()   -- when a device last tried to log in, or is to
);

-- One event when it begins, and one when it is over, however many devices and nodes there are.
CREATE FUNCTION shardd.record_library_state() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    refusal shardd.library_refusals := coalesce(NEW, OLD);
BEGIN
    IF shardd.events_enabled() THEN
        INSERT INTO shardd.outbox (kind, detail) VALUES ('library.state', jsonb_build_object(
            'library', refusal.library, 'state', CASE TG_OP WHEN 'INSERT' THEN 'refused' ELSE 'over' END,
            'since', shardd.iso_time(refusal.since), 'node', refusal.node));
        PERFORM shardd.announce_events();
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER record_library_state AFTER INSERT OR DELETE ON shardd.library_refusals
    FOR EACH ROW EXECUTE FUNCTION shardd.record_library_state();
