-- Files of incoming messages. They are on the disk of a node, below inbox.media_dir; the keys with which they are downloaded are never here.

-- A file was downloaded, or could not be: told after the message itself, which does not wait for it.
CREATE FUNCTION shardd.record_media() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF shardd.events_enabled() THEN
        INSERT INTO shardd.outbox (kind, device_id, detail) VALUES ('message.media', NEW.device_id, shardd.message_data(NEW));
        PERFORM shardd.announce_events();
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER record_media AFTER UPDATE ON shardd.messages FOR EACH ROW
    WHEN ((OLD.media_path, OLD.media_error) IS DISTINCT FROM (NEW.media_path, NEW.media_error))
    EXECUTE FUNCTION shardd.record_media();

-- Files whose messages are deleted, by whomever: their node deletes them, then the row.
CREATE TABLE shardd.deleted_media (
    node text NOT NULL,
    path text NOT NULL,
    PRIMARY KEY (node, path)
);

CREATE FUNCTION shardd.delete_media() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO shardd.deleted_media (node, path)
    SELECT g.media_node, g.media_path FROM gone g WHERE g.media_path IS NOT NULL
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

CREATE TRIGGER delete_media AFTER DELETE ON shardd.messages REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.delete_media();

CREATE INDEX messages_media ON shardd.messages (media_path) WHERE media_path IS NOT NULL;
CREATE INDEX messages_media_awaited ON shardd.messages (media_node)
    WHERE media_node IS NOT NULL AND media_path IS NULL;
