-- Who a recipient is: one address per person, by numbering plans, and which addresses are the same person's. The rules are those of
-- shardd/phone_numbers.py and shardd/persons.py, which tests/integration/test_phone_numbers.py holds against these.

-- The numbers of each country calling code; numbering.sql fills it. No code begins with another one.
CREATE TABLE shardd.country_codes (
    code      text PRIMARY KEY,
    lengths   integer[] NOT NULL,          -- possible numbers of digits after the code
    prefix    text,                        -- what precedes a number that is dialled within the country, as a regular expression
    groups    integer NOT NULL,            -- capturing groups of the prefix
    transform text,                        -- what takes the place of the prefix if its last group matches
    plan      text,                        -- every number of the country, to tell a prefix from the begin of a number
    ranges    text NOT NULL,               -- the numbers that are assigned, as far as known: to choose between readings, never to refuse
    form      text,                        -- another form of numbers (shardd/persons.py): the address is made of it
    form_at   integer,                     -- by removing form_cut digits here and adding form_add
    form_cut  integer,
    form_add  text
);

-- The number that these digits, which begin with a country code, mean, without a prefix that is dialled only within the country; and the
-- address of the person. NULL: no country has the code, no number of the country has so many digits, or there is more than digits.
CREATE FUNCTION shardd.read_number(digits text, OUT number text, OUT address text) LANGUAGE plpgsql STABLE AS $$
DECLARE
    plan  record;
    more  record;
    local text;
    bare  text;
BEGIN
    IF digits ~ '[^0-9]' THEN
        RETURN;
    END IF;
    IF shardd.plain_number(digits) THEN
        number := digits;
        address := digits;
        RETURN;
    END IF;
    SELECT c.code, c.lengths, c.prefix, c.form, c.form_at, c.form_cut, c.form_add INTO plan
      FROM shardd.country_codes c WHERE c.code IN (left(digits, 1), left(digits, 2), left(digits, 3));
    IF NOT FOUND THEN
        RETURN;
    END IF;
    local := substr(digits, length(plan.code) + 1);
    IF local ~ plan.prefix THEN
        SELECT c.groups, c.transform, c.plan INTO more FROM shardd.country_codes c WHERE c.code = plan.code;
        IF more.transform IS NOT NULL AND (regexp_match(local, plan.prefix))[more.groups] IS NOT NULL THEN
            bare := regexp_replace(local, plan.prefix, more.transform);
        ELSE
            bare := regexp_replace(local, plan.prefix, '');
        END IF;
        IF bare <> local AND (length(bare) = ANY (plan.lengths) OR length(bare) > plan.lengths[cardinality(plan.lengths)])
            AND (bare ~ more.plan OR local !~ more.plan) THEN
            SELECT r.number, r.address INTO number, address FROM shardd.read_number(plan.code || bare) r;
            RETURN;
        END IF;
    END IF;
    IF local ~ plan.form THEN
        number := plan.code || local;
        address := plan.code || left(local, plan.form_at) || plan.form_add || substr(local, plan.form_at + plan.form_cut + 1);
    ELSIF length(local) = ANY (plan.lengths) AND length(plan.code) + length(local) <= 15 THEN
        number := plan.code || local;
        address := number;
    END IF;
END $$;

-- Whether a number is in a range of its country, as far as this release knows.
CREATE FUNCTION shardd.is_assigned(number text) RETURNS boolean LANGUAGE sql STABLE
    RETURN (SELECT substr(number, length(c.code) + 1) ~ c.ranges FROM shardd.country_codes c
             WHERE c.code IN (left(number, 1), left(number, 2), left(number, 3)));

-- A number without + by one default calling code (empty: none): the only possible reading, or the first of several that is in a range of
-- its country. The likeliest reading is first: with that code, then within its country, then with another code.
CREATE FUNCTION shardd.read_local_number(digits text, code text, OUT number text, OUT address text) LANGUAGE plpgsql STABLE AS $$
DECLARE
    coded     record;
    inside    record;
    numbers   text[] := '{}';
    addresses text[] := '{}';
BEGIN
    coded := shardd.read_number(CASE WHEN left(digits, 1) <> '0' THEN digits ELSE '' END);
    IF code <> '' THEN
        inside := shardd.read_number(code || digits);
        IF starts_with(digits, code) THEN
            numbers := array[coded.number, inside.number];
            addresses := array[coded.address, inside.address];
        ELSE
            numbers := array[inside.number, coded.number];
            addresses := array[inside.address, coded.address];
        END IF;
    ELSE
        numbers := array[coded.number];
        addresses := array[coded.address];
    END IF;
    numbers := array_remove(numbers, NULL);
    addresses := array_remove(addresses, NULL);
    FOR i IN 1 .. cardinality(addresses) LOOP
        IF addresses[1] = ALL (addresses) OR shardd.is_assigned(addresses[i]) THEN
            number := numbers[i];
            address := addresses[i];
            RETURN;
        END IF;
    END LOOP;
END $$;

-- Reads a recipient as it was written, or refuses what can never be one. `codes`: the default calling codes by which a number without +
-- may be read (empty text: none); all of them must lead to the same address. `field`: what is refused, a column or a key of details.
-- `number`: digits, as WhatsApp or a platform may list the person; NULL: a group or a hidden id. `address`: identifies the person.
CREATE FUNCTION shardd.resolve(recipient text, codes text[], at_table text, field text DEFAULT 'recipient', OUT number text, OUT address text)
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    at_column text := split_part(field, '.', 1);
    clean  text := recipient;
    fine   boolean;
    pieces text[];
    one    record;
    code   text;
BEGIN
    -- Nearly all; cleaning costs more than everything else here.
    IF recipient ~ '^\+[1-9][0-9]{5,20}$' THEN
        one := shardd.read_number(substr(recipient, 2));
    ELSIF recipient ~ '^[1-9][0-9]{4,19}@s\.whatsapp\.net$' THEN
        one := shardd.read_number(split_part(recipient, '@', 1));
    ELSIF recipient ~ '^[0-9]{5,20}@lid$' THEN
        address := recipient;
        RETURN;
    ELSIF recipient IS NOT NULL THEN
        IF recipient ~ '^[0-9]{1,40}$' THEN
            clean := recipient;
        ELSIF octet_length(recipient) <= 800 AND length(recipient) <= 200 THEN
            clean := regexp_replace(recipient, '[\u00AD\u061C\u200B-\u200F\u202A-\u202E\u2060-\u2064\u2066-\u2069\uFEFF]', '', 'g');
        ELSE
            clean := '';
        END IF;
        IF strpos(clean, '@') > 0 THEN
            clean := regexp_replace(clean, '^[\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]+|'
                '[\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]+$', '', 'g');
            IF clean ~ '^[0-9]{5,25}(-[0-9]{5,15})?@g\.us$' OR clean ~ '^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}@bsuid$' THEN
                address := clean;
                RETURN;
            END IF;
            pieces := regexp_match(clean, '^([0-9]{5,20})(?:\.[0-9]{1,5})?(?::[0-9]{1,5})?@(s\.whatsapp\.net|c\.us|lid)$');
            IF pieces[2] = 'lid' THEN
                address := pieces[1] || '@lid';
                RETURN;
            END IF;
            clean := CASE WHEN left(pieces[1], 1) = '0' THEN pieces[1] ELSE '+' || pieces[1] END;
        ELSIF clean ~ '^[\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]*\+?[0-9]{7,}\.[0-9]{1,2}[\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]*$' THEN
            -- Read as a number, its decimals would make it somebody else's.
            fine := shardd.refuse(at_column, format('%s %L is a decimal number, as a spreadsheet writes it', field, left(recipient, 80)),
                'Write its digits as text, with + and country code, such as +4915112345678.', at_table);
        ELSIF clean ~ '[^0-9]' THEN
            clean := regexp_replace(clean, '[\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000()./'
                '\u2010-\u2015\u2212-]', '', 'g');
        END IF;
        clean := regexp_replace(clean, '^00', '+');
        IF (clean ~ '^\+?[0-9]{1,40}$') IS NOT TRUE THEN
            fine := shardd.refuse(at_column,
                format('%s %L is neither a phone number nor a WhatsApp address', field, left(recipient, 80)),
                'Write a phone number with its country code, such as +4915112345678, or an address that ends with '
                '@s.whatsapp.net, @lid or @g.us.', at_table);
        ELSIF left(clean, 1) = '+' THEN
            one := shardd.read_number(substr(clean, 2));
        ELSE
            FOREACH code IN ARRAY codes LOOP
                one := shardd.read_local_number(clean, code);
                IF one.address IS NULL OR address <> one.address THEN
                    fine := shardd.refuse(at_column,
                        format(CASE WHEN address IS NULL THEN '%s %L cannot be resolved to a phone number without its country'
                                    ELSE '%s %L could be a number of several countries' END, field, left(recipient, 80)),
                        'Write it with + and its country code, such as +4915112345678'
                        || CASE WHEN code = '' THEN ', or set default_region of a transport in the config.' ELSE '.' END, at_table);
                END IF;
                address := one.address;
            END LOOP;
        END IF;
    ELSE
        RETURN;
    END IF;
    IF one.address IS NULL THEN
        fine := shardd.refuse(at_column, format('%s %L cannot be a phone number', field, left(recipient, 80)),
            'No country has the code, or no number of the country has so many digits: write + and the country code, such as '
            '+4915112345678.', at_table);
    END IF;
    number := one.number;
    address := one.address;
END $$;

-- The default calling codes by which an opt-out's number without + may be read, which is of no device: those of all transports that have one.
CREATE FUNCTION shardd.codes_of_opt_out() RETURNS text[] LANGUAGE sql STABLE
    RETURN coalesce((SELECT array_agg(DISTINCT e.value) FROM shardd.settings s CROSS JOIN jsonb_each_text(s.value) e
                      WHERE s.name = 'default_codes'), array['']);

-- The same for a job: those of its device, or of the devices of its group. Empty text: a transport has none. The sandbox rehearses for
-- the others, and reads numbers as they do.
CREATE FUNCTION shardd.codes_of_job(device_id text, device_group text) RETURNS text[] LANGUAGE sql STABLE
    RETURN coalesce((
        SELECT array_agg(DISTINCT codes.code)
          FROM shardd.devices d
         CROSS JOIN LATERAL unnest(CASE WHEN d.transport = 'sandbox' THEN shardd.codes_of_opt_out() ELSE array[coalesce(
             (SELECT s.value ->> d.transport FROM shardd.settings s WHERE s.name = 'default_codes'), '')] END) codes(code)
         WHERE CASE WHEN codes_of_job.device_id IS NOT NULL THEN d.id = codes_of_job.device_id
               ELSE d.id IN (SELECT m.device_id FROM shardd.device_group_members m WHERE m.device_group = codes_of_job.device_group) END),
        array['']);

-- The details of a contact with its number as it is sent, which is read like a recipient. Refuses what is not a phone number.
CREATE FUNCTION shardd.contact_details(details jsonb, device_id text, device_group text) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    phone  text := details ->> 'phone';
    digits text;
    fine   boolean;
BEGIN
    IF strpos(phone, '@') = 0 THEN
        digits := (shardd.resolve(phone, CASE WHEN left(phone, 1) <> '+' THEN shardd.codes_of_job(device_id, device_group) END,
                                  'jobs', 'details.phone')).number;
    END IF;
    IF digits IS NULL THEN
        fine := shardd.refuse('details', format('details.phone %L is not a phone number', left(phone, 80)),
            'Write the number of the contact with its country code, such as +4915112345678.');
    END IF;
    RETURN jsonb_set(details, '{phone}', to_jsonb('+' || digits));
END $$;

-- Addresses of one person, as they were learned: from WhatsApp's directory, which may list an account under another number than people dial,
-- from the sessions of devices (a number and its LID), and from incoming messages.
CREATE TABLE shardd.same_person (
    address    text NOT NULL,
    other      text NOT NULL,
    learned_at timestamptz NOT NULL DEFAULT now(),
    moved      boolean NOT NULL DEFAULT false,  -- the address is a number that the person has no more
    PRIMARY KEY (address, other),
    CONSTRAINT two_addresses CHECK (address <> other)
);

CREATE INDEX same_person_other ON shardd.same_person (other);

-- An opt-out holds for the person: it is added to the list for each address of theirs that is known, now or later. So that one look at
-- the list is enough, wherever a job is inserted, claimed or sent.
CREATE FUNCTION shardd.spread_opt_outs(addresses text[], others text[]) RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO shardd.opt_outs (address, same_as, recipient, source, device_id, words, note, said_at, heard_at, created_by)
    SELECT DISTINCT ON (e.other) e.other, o.address, CASE WHEN strpos(e.other, '@') > 0 THEN '' ELSE '+' END || e.other, o.source, o.device_id, o.words,
           'the same person as ' || o.address, o.said_at, o.heard_at, o.created_by
      FROM unnest(addresses, others) AS e(address, other)
      JOIN shardd.opt_outs o ON o.address = e.address
     WHERE NOT EXISTS (SELECT FROM shardd.opt_outs there WHERE there.address = e.other)
       AND NOT EXISTS (SELECT FROM shardd.opt_out_log l
                        WHERE l.address = e.other AND l.kind = 'taken_back' AND l.said_at > o.heard_at)
     ORDER BY e.other
    ON CONFLICT (address) DO NOTHING
$$;

-- Runs again for what it adds, until every known address of the person is on the list.
CREATE FUNCTION shardd.spread_added_opt_outs() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    addresses text[];
    others    text[];
BEGIN
    SELECT array_agg(e.address), array_agg(e.other) INTO addresses, others
      FROM (SELECT a.address, p.other FROM added a JOIN shardd.same_person p ON p.address = a.address
             UNION ALL SELECT a.address, p.address FROM added a JOIN shardd.same_person p ON p.other = a.address) e;
    IF addresses IS NOT NULL THEN
        PERFORM shardd.spread_opt_outs(addresses, others);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER spread_opt_outs AFTER INSERT ON shardd.opt_outs REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.spread_added_opt_outs();

CREATE FUNCTION shardd.spread_learned_addresses() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    addresses text[];
    others    text[];
BEGIN
    SELECT array_agg(a.address) || array_agg(a.other), array_agg(a.other) || array_agg(a.address) INTO addresses, others FROM added a
     WHERE EXISTS (SELECT FROM shardd.opt_outs o WHERE o.address = a.address)
        <> EXISTS (SELECT FROM shardd.opt_outs o WHERE o.address = a.other);
    IF addresses IS NOT NULL THEN
        PERFORM shardd.spread_opt_outs(addresses, others);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER spread_opt_outs AFTER INSERT ON shardd.same_person REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.spread_learned_addresses();

-- Brings up to date what an earlier table of numbers stored: up to `most` rows of each table at a time, in the order of their keys. Old
-- addresses of opt-outs stay on the list, and new ones join them. Returns the number of rows that it looked at; 0: nothing is left.
CREATE FUNCTION shardd.refresh_addresses(most integer) RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rules jsonb := (SELECT s.value FROM shardd.settings s WHERE s.name = 'phone_numbers.version');
    done  jsonb;
    seen  integer := 0;
    one   integer;
    last  text[];
BEGIN
    INSERT INTO shardd.settings (name, value) VALUES ('phone_numbers.refreshed', '{}') ON CONFLICT (name) DO NOTHING;
    SELECT s.value INTO done FROM shardd.settings s WHERE s.name = 'phone_numbers.refreshed' FOR UPDATE;
    IF done -> 'version' IS DISTINCT FROM rules THEN
        done := jsonb_build_object('version', rules, 'opt_out', '', 'address', '', 'other', '', 'job', 0);
    ELSIF done ? 'done' THEN
        RETURN 0;
    END IF;

    WITH old AS MATERIALIZED (
        SELECT o.address FROM shardd.opt_outs o WHERE o.address > done ->> 'opt_out' ORDER BY o.address LIMIT most
    ), learned AS (
        INSERT INTO shardd.same_person (address, other)
        SELECT old.address, n.address FROM old CROSS JOIN LATERAL shardd.read_number(old.address) n WHERE n.address <> old.address
         ORDER BY 1, 2
        ON CONFLICT DO NOTHING
    )
    SELECT count(*), array[max(old.address)] INTO one, last FROM old;
    seen := seen + one;
    done := done || jsonb_build_object('opt_out', coalesce(last[1], done ->> 'opt_out'));

    WITH old AS MATERIALIZED (
        SELECT p.address, p.other FROM shardd.same_person p WHERE (p.address, p.other) > (done ->> 'address', done ->> 'other')
         ORDER BY p.address, p.other LIMIT most
    ), learned AS (
        INSERT INTO shardd.same_person (address, other)
        SELECT DISTINCT e.address, n.address FROM (SELECT address FROM old UNION SELECT other FROM old) e(address)
         CROSS JOIN LATERAL shardd.read_number(e.address) n WHERE n.address <> e.address
         ORDER BY 1, 2
        ON CONFLICT DO NOTHING
    )
    SELECT count(*), max(array[old.address, old.other]) INTO one, last FROM old;
    seen := seen + one;
    done := done || jsonb_build_object('address', coalesce(last[1], done ->> 'address'), 'other', coalesce(last[2], done ->> 'other'));

    WITH old AS MATERIALIZED (
        SELECT j.id, j.address FROM shardd.jobs j WHERE j.id > (done ->> 'job')::bigint ORDER BY j.id LIMIT most
    ), changed AS (
        UPDATE shardd.jobs j SET address = n.address, number = coalesce(j.number, j.address)
          FROM old CROSS JOIN LATERAL shardd.read_number(old.address) n
         WHERE j.id = old.id AND j.address = old.address AND n.address <> old.address
    )
    SELECT count(*), array[max(old.id)::text] INTO one, last FROM old;
    seen := seen + one;
    done := done || jsonb_build_object('job', coalesce(last[1]::bigint, (done ->> 'job')::bigint));

    UPDATE shardd.settings SET value = CASE WHEN seen = 0 THEN done || '{"done": true}' ELSE done END
     WHERE name = 'phone_numbers.refreshed';
    RETURN seen;
END $$;
