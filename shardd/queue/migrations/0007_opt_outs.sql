-- Admission to the opt-out list, and its log. An opt-out holds until the person takes it back by a message (shardd.take_back): a wrong
-- deletion could not be told from a right one afterwards.

-- What people said: opt-outs, their repetitions, and when one was taken back.
CREATE TABLE shardd.opt_out_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address    text NOT NULL,
    kind       text NOT NULL,
    ended      boolean NOT NULL DEFAULT false,  -- an opt-out that was taken back
    source     text NOT NULL,
    device_id  text,
    words      text,
    said_at    timestamptz,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT opt_out_log_kind_is_known CHECK (kind IN ('opted_out', 'repeated', 'taken_back'))
);

-- Of two transactions with the same opt-out at the same time, the second waits here and then does nothing.
CREATE UNIQUE INDEX opt_out_log_standing ON shardd.opt_out_log (address) WHERE kind = 'opted_out' AND NOT ended;
CREATE INDEX opt_out_log_address ON shardd.opt_out_log (address, id);
CREATE INDEX archive_opted_out ON shardd.archive (address, id) WHERE state = 'opted_out';

-- Runs with its owner's rights, because producers may not read the tables that it reads. An existing opt-out stays as it is, and the
-- INSERT does nothing; a repetition by message is logged, once a day, because there may have been messages in between. One of the same
-- time is the same one: a node tries again when it gets no answer. What people said counts in the order in which they said it: what they
-- said before the message that took the opt-out back is not one, whoever reports it, and however often.
CREATE FUNCTION shardd.admit_opt_out() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
BEGIN
    IF NEW.recipient IS NULL THEN
        NEW.address := '';  -- so that NOT NULL names the column that was left out
        RETURN NEW;
    END IF;
    IF octet_length(NEW.note) > 4000 OR length(NEW.note) > 1000 THEN
        fine := shardd.refuse('note', 'note is too long', 'Use at most 1000 characters.', 'opt_outs');
    ELSIF octet_length(NEW.words) > 4000 OR length(NEW.words) > 1000 THEN
        fine := shardd.refuse('words', 'words are too long', 'Use at most 1000 characters.', 'opt_outs');
    END IF;
    IF NEW.address IS NOT NULL THEN
        NULL;  -- another address of the same person; only the owner can give one
    ELSIF NEW.source = 'message' AND NEW.recipient ~ '^\+[0-9]{1,40}$' THEN
        NEW.address := shardd.heard_address(NEW.recipient);
    ELSE
        NEW.address := (shardd.resolve(NEW.recipient, shardd.codes_of_opt_out(), 'opt_outs')).address;
    END IF;
    IF NEW.same_as IS NULL THEN
        NEW.created_by := coalesce(shardd.bound_as(), NEW.created_by);
        NEW.heard_at := CASE WHEN NEW.source = 'message' THEN coalesce(NEW.said_at, now())
                             ELSE least(coalesce(NEW.said_at, NEW.heard_at), now()) END;
    END IF;
    IF NEW.said_at IS NOT NULL AND EXISTS (SELECT FROM shardd.opt_out_log l WHERE l.address = NEW.address AND l.kind = 'taken_back'
                                             AND l.said_at > NEW.heard_at) THEN
        RETURN NULL;
    END IF;
    -- Nothing is stored of who was forgotten.
    IF shardd.is_forgotten(NEW.address) THEN
        UPDATE shardd.forgotten f SET heard_at = greatest(f.heard_at, NEW.heard_at) WHERE f.pseudonym = shardd.pseudonym(NEW.address);
        RETURN NULL;
    END IF;
    -- Again, if it is taken back between the two statements.
    FOR i IN 1 .. 10 LOOP
        INSERT INTO shardd.opt_out_log (address, kind, source, device_id, words, said_at, created_by, created_at)
            VALUES (NEW.address, 'opted_out', NEW.source, NEW.device_id, NEW.words, NEW.said_at, NEW.created_by, NEW.created_at)
            ON CONFLICT (address) WHERE kind = 'opted_out' AND NOT ended DO NOTHING;
        IF FOUND THEN
            RETURN NEW;
        END IF;
        PERFORM set_config('shardd.maintains_opt_outs', 'yes', true);
        UPDATE shardd.opt_outs o SET heard_at = greatest(o.heard_at, NEW.heard_at) WHERE o.address = NEW.address;
        EXIT WHEN FOUND;
    END LOOP;
    PERFORM set_config('shardd.maintains_opt_outs', '', true);
    IF NEW.source = 'message' THEN
        INSERT INTO shardd.opt_out_log (address, kind, source, device_id, words, said_at, created_by)
        SELECT NEW.address, 'repeated', NEW.source, NEW.device_id, NEW.words, NEW.said_at, NEW.created_by
         WHERE NOT EXISTS (SELECT FROM shardd.opt_out_log l
                            WHERE l.address = NEW.address
                              AND (l.said_at = NEW.said_at OR l.kind = 'repeated' AND l.created_at > now() - interval '1 day'));
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER admit_opt_out BEFORE INSERT ON shardd.opt_outs FOR EACH ROW EXECUTE FUNCTION shardd.admit_opt_out();

CREATE FUNCTION shardd.protect_opt_outs() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
BEGIN
    IF current_setting('shardd.maintains_opt_outs', true) IS DISTINCT FROM 'yes' THEN
        fine := shardd.refuse('address', format('%s of %s: only the person can take an opt-out back', TG_OP, TG_TABLE_NAME),
            'They write one of the words of opt_outs.take_back_words to a device. To erase what is known about somebody: '
            'shardd opt-out forget.', TG_TABLE_NAME, 'object_not_in_prerequisite_state');
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER protect_opt_outs BEFORE UPDATE OR DELETE OR TRUNCATE ON shardd.opt_outs
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.protect_opt_outs();
CREATE TRIGGER protect_opt_outs BEFORE UPDATE OR DELETE OR TRUNCATE ON shardd.opt_out_log
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.protect_opt_outs();
