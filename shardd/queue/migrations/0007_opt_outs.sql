-- The gate of the list of those who want no more messages, and the trail that it leaves. What comes in once stays: nobody could
-- tell a wrong deletion from a right one afterwards, and the list is worth as much as its least careful writer.

-- Every opt-out when it was first heard, and when the same person had to say it again.
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

-- Two that hear the same opt-out at the same moment meet here, where the second can be told to do nothing.
CREATE UNIQUE INDEX opt_out_log_first ON shardd.opt_out_log (address) WHERE NOT again;
CREATE INDEX opt_out_log_address ON shardd.opt_out_log (address, id);
CREATE INDEX archive_opted_out ON shardd.archive (shardd.address_of(recipient), id) WHERE state = 'opted_out';

-- Refuses a phone number whose country code, or whose spelling after it, leaves open which number is meant: an opt-out under the
-- wrong address holds nothing. `opt_outs.country_codes` are those of the config's default regions.
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
            RETURN shardd.refuse('recipient', format('recipient %L may be a number of several countries', recipient),
                'Write it with + and its country code, such as +4915112345678.', 'opt_outs');
        END IF;
    END IF;
    -- The countries that are left out of the second pattern have numbers that begin with 0.
    digits := regexp_replace(digits, '^00', '');
    IF digits ~ '^(1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|'
                '(2[1-689]|3[578]|42|5[09]|6[7-9]|8[0578]|9[679])[0-9])0'
        AND digits !~ '^(39|225|226|229|241|242|378|881|992)0' THEN
        RETURN shardd.refuse('recipient', format('recipient %L has a 0 after its country code', recipient),
            'Leave out the 0 that is only dialled within the country: +49 151 2345678, not +49 (0)151 2345678.', 'opt_outs');
    END IF;
    RETURN true;
END $$;

-- Runs with its owner's rights, because a producer may not read what it looks at. An opt-out that is there already stands as it
-- is, and the INSERT does nothing; a person who writes it again may have been written to in between, so that is kept, once a day.
-- What was said at the same moment is the same: a node tries again when it got no answer.
CREATE FUNCTION shardd.admit_opt_out() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
BEGIN
    IF NEW.recipient IS NULL THEN
        NEW.address := '';  -- so that NOT NULL names the column that was left out
        RETURN NEW;
    END IF;
    IF octet_length(NEW.note) > 4000 OR length(NEW.note) > 1000 THEN
        fine := shardd.refuse('note', 'note is too long', 'At most 1000 characters.', 'opt_outs');
    ELSIF octet_length(NEW.words) > 4000 OR length(NEW.words) > 1000 THEN
        fine := shardd.refuse('words', 'words are too long', 'At most 1000 characters.', 'opt_outs');
    END IF;
    fine := shardd.check_recipient(NEW.recipient, 'opt_outs');
    IF NEW.source <> 'message' THEN  -- WhatsApp knows how its numbers are spelled
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

CREATE FUNCTION shardd.keep_opt_outs() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
BEGIN
    fine := shardd.refuse('address', format('%s of %s: an opt-out is final', TG_OP, TG_TABLE_NAME),
        'Whoever wants messages again can be written to by hand, from the phone.', TG_TABLE_NAME, 'object_not_in_prerequisite_state');
    RETURN NULL;
END $$;

CREATE TRIGGER keep_opt_outs BEFORE UPDATE OR DELETE OR TRUNCATE ON shardd.opt_outs
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.keep_opt_outs();
CREATE TRIGGER keep_opt_outs BEFORE UPDATE OR DELETE OR TRUNCATE ON shardd.opt_out_log
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.keep_opt_outs();
