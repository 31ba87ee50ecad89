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
CREATE INDEX archive_opted_out ON shardd.archive (shardd.address_of(recipient), id) WHERE state = 'opted_out';

-- Refuses a phone number that is ambiguous in its country code or in the digits after it: an opt-out under a wrong address has no effect.
-- `opt_outs.country_codes` are those of the config's default regions.
CREATE FUNCTION shardd.check_spelling(recipient text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    digits text := regexp_replace(recipient, '[^0-9]', '', 'g');
    codes  jsonb;
BEGIN
    IF recipient ~ '@' THEN
        RETURN true;
    END IF;
    IF recipient !~ '^\s*\(?\+' AND digits !~ '^00' THEN
        SELECT s.value INTO codes FROM shardd.settings s WHERE s.name = 'opt_outs.country_codes';
        IF digits ~ '^0' OR codes <> '[]' AND (jsonb_array_length(codes) > 1 OR strpos(digits, codes ->> 0) <> 1) THEN
            RETURN shardd.refuse('recipient', format('recipient %L could be a number of several countries', recipient),
                'Write it with + and its country code, such as +4915112345678.', 'opt_outs');
        END IF;
    END IF;
    -- The countries in the second pattern have numbers that begin with 0.
    digits := regexp_replace(digits, '^00', '');
    IF digits ~ '^(1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|'
                '(2[1-689]|3[578]|42|5[09]|6[7-9]|8[0578]|9[679])[0-9])0'
        AND digits !~ '^(39|225|226|229|241|242|378|881|992)0' THEN
        RETURN shardd.refuse('recipient', format('recipient %L has a 0 after its country code', recipient),
            'Omit the 0 that is dialled only within the country: +49 151 2345678, not +49 (0)151 2345678.', 'opt_outs');
    END IF;
    RETURN true;
END $$;

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
    fine := shardd.check_recipient(NEW.recipient, 'opt_outs');
    IF NEW.source <> 'message' THEN  -- numbers from WhatsApp are canonical
        fine := shardd.check_spelling(NEW.recipient);
    END IF;
    NEW.address := shardd.address_of(NEW.recipient);
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
