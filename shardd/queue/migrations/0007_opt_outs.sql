-- Admission to the opt-out list, and its log. An opt-out is final: a wrong deletion could not be told from a right one afterwards.

-- Every opt-out: when it first came, and when the same person had to repeat it.
CREATE TABLE shardd.opt_out_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address    text NOT NULL,
    again      boolean NOT NULL,
    source     text NOT NULL,
    device_id  text,
    words      text,
    said_at    timestamptz,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Of two transactions with the same opt-out at the same time, the second waits here and then does nothing.
CREATE UNIQUE INDEX opt_out_log_first ON shardd.opt_out_log (address) WHERE NOT again;
CREATE INDEX opt_out_log_address ON shardd.opt_out_log (address, id);
CREATE INDEX archive_opted_out ON shardd.archive (address, id) WHERE state = 'opted_out';

-- Runs with its owner's rights, because producers may not read the tables that it reads. An existing opt-out stays as it is, and the
-- INSERT does nothing; a repetition by message is logged, once a day, because there may have been messages in between. One of the same
-- time is the same one: a node tries again when it gets no answer.
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
    IF NEW.source = 'message' AND NEW.recipient ~ '^\+[0-9]{1,40}$' THEN
        -- As WhatsApp or a platform names the person: it is never refused.
        NEW.address := coalesce((shardd.read_number(substr(NEW.recipient, 2))).address, substr(NEW.recipient, 2));
    ELSE
        NEW.address := (shardd.resolve(NEW.recipient, shardd.codes_of_opt_out(), 'opt_outs')).address;
    END IF;
    NEW.created_by := coalesce(shardd.bound_as(), NEW.created_by);
    INSERT INTO shardd.opt_out_log (address, again, source, device_id, words, said_at, created_by, created_at)
        VALUES (NEW.address, false, NEW.source, NEW.device_id, NEW.words, NEW.said_at, NEW.created_by, NEW.created_at)
        ON CONFLICT (address) WHERE NOT again DO NOTHING;
    IF FOUND THEN
        RETURN NEW;
    END IF;
    IF NEW.source = 'message' THEN
        INSERT INTO shardd.opt_out_log (address, again, source, device_id, words, said_at, created_by)
        SELECT NEW.address, true, NEW.source, NEW.device_id, NEW.words, NEW.said_at, NEW.created_by
         WHERE NOT EXISTS (SELECT FROM shardd.opt_out_log l
                            WHERE l.address = NEW.address
                              AND (l.said_at = NEW.said_at OR l.again AND l.created_at > now() - interval '1 day'));
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER admit_opt_out BEFORE INSERT ON shardd.opt_outs FOR EACH ROW EXECUTE FUNCTION shardd.admit_opt_out();

CREATE FUNCTION shardd.protect_opt_outs() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
BEGIN
    fine := shardd.refuse('address', format('%s of %s: an opt-out is final', TG_OP, TG_TABLE_NAME),
        'To reach somebody who wants messages again, write to them by hand, from the phone.', TG_TABLE_NAME, 'object_not_in_prerequisite_state');
    RETURN NULL;
END $$;

CREATE TRIGGER protect_opt_outs BEFORE UPDATE OR DELETE OR TRUNCATE ON shardd.opt_outs
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.protect_opt_outs();
CREATE TRIGGER protect_opt_outs BEFORE UPDATE OR DELETE OR TRUNCATE ON shardd.opt_out_log
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.protect_opt_outs();
