-- Admission to the queue: a bad row is refused at INSERT, with a message for the author of the INSERT.

-- The body with its variables: {name}, {name|used when name is missing or empty}, {{ and }} for braces. A value is put in as it is and
-- not expanded again. Braces are counted first and the length as it grows, so that excess is refused early.
CREATE FUNCTION shardd.render_body(body text, variables jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    fine boolean;
    rendered text := '';
    piece    text[];
    variable text;
    kind     text;
    value    text;
BEGIN
    IF length(body) - length(translate(body, '{}', '')) > 2000 THEN
        fine := shardd.refuse('body', format('body has %s braces', length(body) - length(translate(body, '{}', ''))),
            'Use at most 2000, enough for a thousand variables.');
    END IF;
    FOR piece IN SELECT m FROM regexp_matches(body, '([^{}]*)(\{\{|\}\}|\{[^{}]*\}|[{}]|$)', 'g') m LOOP
        rendered := rendered || piece[1];
        CONTINUE WHEN piece[2] = '';
        IF piece[2] IN ('{{', '}}') THEN
            rendered := rendered || left(piece[2], 1);
            CONTINUE;
        END IF;
        variable := substring(piece[2] FROM '^\{([A-Za-z_][A-Za-z0-9_]*)[|}]');
        IF variable IS NULL THEN
            fine := shardd.refuse('body', format('body has %L, which is not a variable', left(piece[2], 80)),
                'Write {name} or {name|default}, with letters A to Z, digits and _ in the name, and {{ or }} for a literal '
                'brace.');
        END IF;
        kind := jsonb_typeof(variables -> variable);
        value := variables ->> variable;
        IF kind IN ('object', 'array') THEN
            fine := shardd.refuse('variables', format('variable %L is an %s', variable, kind),
                'Give a string, a number or a boolean.');
        ELSIF value IS NULL OR value = '' THEN
            IF strpos(piece[2], '|') = 0 THEN
                fine := shardd.refuse('variables', format('variable %L is %s, but the body needs it', variable,
                                                          CASE WHEN value = '' THEN 'empty' ELSE 'missing' END),
                    format('Give it a value, or write {%s|default} in the body.', variable));
            END IF;
            value := substr(piece[2], strpos(piece[2], '|') + 1, length(piece[2]) - strpos(piece[2], '|') - 1);
        END IF;
        rendered := rendered || value;
        IF length(rendered) > 65536 THEN
            fine := shardd.refuse('body', 'body has more than 65536 characters with its variables',
                'At most 65536 characters fit in one message: split it, or send a document.');
        END IF;
    END LOOP;
    RETURN rendered;
END $$;

-- The limits of each column's size, so that later checks may read whole values. (The functions that admit_job calls set no search_path
-- of their own: they inherit it, and setting it again for each would be half of their cost. Only their owner may call them.)
CREATE FUNCTION shardd.check_sizes(job shardd.jobs) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    too_long text;
    fine     boolean;
BEGIN
    IF octet_length(job.body) > 65536 AND (octet_length(job.body) > 4 * 65536 OR length(job.body) > 65536) THEN
        RETURN shardd.refuse('body', format('body has %s characters', length(job.body)),
            'At most 65536 characters fit in one message: split it, or send a document.');
    END IF;
    too_long := CASE
        WHEN octet_length(job.media) > 1048576 THEN 'media'
        WHEN octet_length(job.reference) > 800 OR length(job.reference) > 200 THEN 'reference'
        WHEN octet_length(job.dedupe_key) > 800 OR length(job.dedupe_key) > 200 THEN 'dedupe_key'
        WHEN octet_length(job.order_group) > 800 OR length(job.order_group) > 200 THEN 'order_group'
        WHEN octet_length(job.file_name) > 1020 OR length(job.file_name) > 255 THEN 'file_name'
        WHEN octet_length(job.mime_type) > 1020 OR length(job.mime_type) > 255 THEN 'mime_type' END;
    IF too_long IS NOT NULL THEN
        RETURN shardd.refuse(too_long, format('%s is too long', too_long),
            'At most 200 characters in reference, dedupe_key and order_group, 255 in file_name and mime_type, and 1 MiB in media: '
            'give a larger file by its URL or path.');
    END IF;
    IF job.details IS NOT NULL THEN
        fine := shardd.check_json('details', job.details, 8192);
    END IF;
    IF job.variables IS NOT NULL THEN
        fine := shardd.check_json('variables', job.variables, 65536);
    END IF;
    IF job.metadata IS NOT NULL THEN
        fine := shardd.check_json('metadata', job.metadata, 8192);
    END IF;
    RETURN true;
END $$;

-- The keys that details may have.
CREATE FUNCTION shardd.details_of(kind text) RETURNS text[] LANGUAGE sql IMMUTABLE
    RETURN CASE kind WHEN 'text' THEN '{link_preview}'::text[]
                     WHEN 'location' THEN '{latitude,longitude,name,address}'
                     WHEN 'contact' THEN '{name,phone}'
                     WHEN 'template' THEN '{name,language,components}'
                     ELSE '{}' END;

-- Refuses what the kind of message has no place for, because it would be left out unnoticed. Only called when there is something.
CREATE FUNCTION shardd.refuse_unsent(job shardd.jobs) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    has_file boolean := job.kind IN ('image', 'video', 'audio', 'voice', 'document');
    has_body boolean := job.kind IN ('text', 'image', 'video', 'document');
    known    text[] := shardd.details_of(job.kind);
    unsent   text := CASE WHEN job.body <> '' AND NOT has_body THEN 'body'
                          WHEN job.variables IS NOT NULL AND NOT has_body THEN 'variables'
                          WHEN job.media IS NOT NULL AND NOT has_file THEN 'media'
                          WHEN job.file_name IS NOT NULL AND NOT has_file THEN 'file_name'
                          WHEN job.mime_type IS NOT NULL AND NOT has_file THEN 'mime_type'
                          WHEN job.revokes IS NOT NULL AND job.kind <> 'revoke' THEN 'revokes'
                          WHEN job.details <> '{}' AND known = '{}' THEN 'details' END;
    alien    text := (SELECT key FROM jsonb_object_keys(job.details) key WHERE key <> ALL (known) ORDER BY key LIMIT 1);
    meant    text := (SELECT name FROM unnest(known) name
                       WHERE length(alien) > 2 AND (strpos(name, lower(alien)) > 0 OR strpos(lower(alien), name) > 0
                                                    OR left(name, 3) = left(lower(alien), 3)) LIMIT 1);
BEGIN
    IF unsent IS NOT NULL THEN
        RETURN shardd.refuse(unsent, format('%s is given, but kind %L has no place for it: it would not be sent', unsent, job.kind),
            CASE WHEN job.kind = 'template' AND unsent IN ('body', 'variables')
                     THEN 'Leave it out. The values of a template are in the components of its details.'
                 WHEN unsent IN ('body', 'variables') THEN 'Leave it out, and send a text as a job of its own.'
                 WHEN unsent = 'details' OR job.kind = 'revoke' THEN 'Leave it out (NULL).'
                 WHEN unsent = 'revokes' THEN 'Leave it out (NULL), or write kind ''revoke'' and leave out the content.'
                 ELSE 'Leave it out (NULL), or name the kind of the file: image, video, audio, voice or document.' END);
    ELSIF alien IS NOT NULL THEN
        RETURN shardd.refuse('details', format('details have %L, which is unknown', left(alien, 80)),
            format('%sThe details of kind %L: %s.', CASE WHEN meant IS NOT NULL THEN format('Did you mean %s? ', meant) END,
                   job.kind, array_to_string(known, ', ')));
    END IF;
    RETURN true;
END $$;

-- What each kind of message must have, and what it has no place for.
CREATE FUNCTION shardd.check_content(job shardd.jobs) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF job.kind = 'text' THEN
        IF shardd.is_blank(job.body) THEN
            RETURN shardd.refuse('body', 'body is empty', 'A text message needs a body with visible characters.');
        ELSIF job.media IS NOT NULL THEN
            RETURN shardd.refuse('kind', 'kind is ''text'', but media is given',
                'Name the kind of the media: image, video, audio, voice or document.');
        ELSIF num_nonnulls(job.file_name, job.mime_type, job.details, job.revokes) = 0 THEN
            RETURN true;
        ELSIF jsonb_typeof(job.details -> 'link_preview') NOT IN ('boolean', 'null') THEN
            RETURN shardd.refuse('details', format('link_preview is %s', left((job.details -> 'link_preview')::text, 40)),
                'true or false; leave it out for what the config says.');
        END IF;
    ELSIF job.kind IN ('image', 'video', 'audio', 'voice', 'document') THEN
        IF job.media IS NULL OR shardd.is_blank(left(job.media, 100)) THEN
            RETURN shardd.refuse('media', format('media is empty, but kind is %L', job.kind),
                'Give an http(s) URL, a data: URI, or a file below the configured media folder.');
        ELSIF left(job.media, 100) ~* '^[a-z][a-z0-9+.-]*://' AND left(job.media, 100) !~* '^https?://' THEN
            RETURN shardd.refuse('media', format('media %L is not an http(s) URL', left(job.media, 80)),
                'Give an http(s) URL, a data: URI, or a file below the configured media folder.');
        END IF;
    ELSIF job.kind = 'location' THEN
        IF jsonb_typeof(job.details -> 'latitude') IS DISTINCT FROM 'number'
            OR jsonb_typeof(job.details -> 'longitude') IS DISTINCT FROM 'number' THEN
            RETURN shardd.refuse('details', 'details lack the numbers latitude and longitude',
                'Example: {"latitude": 52.52, "longitude": 13.40, "name": "Berlin"}.');
        ELSIF abs((job.details ->> 'latitude')::numeric) > 90 OR abs((job.details ->> 'longitude')::numeric) > 180 THEN
            RETURN shardd.refuse('details',
                format('latitude %s, longitude %s is not a place on Earth', left(job.details ->> 'latitude', 20),
                       left(job.details ->> 'longitude', 20)),
                'Degrees: latitude from -90 to 90, longitude from -180 to 180.');
        END IF;
    ELSIF job.kind = 'contact' THEN
        IF jsonb_typeof(job.details -> 'name') IS DISTINCT FROM 'string' OR shardd.is_blank(job.details ->> 'name')
            OR coalesce(jsonb_typeof(job.details -> 'phone'), '') NOT IN ('string', 'number') OR shardd.is_blank(job.details ->> 'phone') THEN
            RETURN shardd.refuse('details', 'details lack the name or the phone of the contact',
                'Example: {"name": "Ada", "phone": "+4915112345678"}.');
        END IF;
    ELSIF job.kind = 'template' THEN
        IF jsonb_typeof(job.details -> 'name') IS DISTINCT FROM 'string' OR shardd.is_blank(job.details ->> 'name')
            OR jsonb_typeof(job.details -> 'language') IS DISTINCT FROM 'string' OR shardd.is_blank(job.details ->> 'language') THEN
            RETURN shardd.refuse('details', 'details lack the name or the language of the template',
                'Example: {"name": "order_sent", "language": "en_US", "components": []}.');
        ELSIF jsonb_typeof(job.details -> 'components') NOT IN ('array', 'null') THEN
            RETURN shardd.refuse('details', format('components of the template are not a list: %s',
                                                   left(job.details ->> 'components', 40)),
                'Example: {"name": "order_sent", "language": "en_US", "components": []}.');
        END IF;
    ELSIF job.kind = 'revoke' THEN
        IF job.revokes IS NULL THEN
            RETURN shardd.refuse('revokes', 'revokes is empty, but kind is ''revoke''', 'Give the id of the job whose message is to be deleted.');
        END IF;
    ELSE
        RETURN shardd.refuse('kind', format('kind %L is unknown', left(job.kind, 80)),
            'One of: text, image, video, audio, voice, document, location, contact, template, revoke.');
    END IF;
    RETURN shardd.refuse_unsent(job);
END $$;

-- Refuses what neither the device of a job nor any device of its group can send. A plain text is sent by all of them.
CREATE FUNCTION shardd.check_carried(job shardd.jobs) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    names    text[];
    kinds    text[];
    previews boolean;
    any_kind boolean;
    sender   text;
BEGIN
    SELECT array_agg(DISTINCT t.name), bool_or(t.kinds = '{}'), bool_or(t.link_preview),
           array_agg(DISTINCT k.kind) FILTER (WHERE k.kind IS NOT NULL)
      INTO names, any_kind, previews, kinds
      FROM shardd.devices d JOIN shardd.transports t ON t.name = d.transport LEFT JOIN LATERAL unnest(t.kinds) k(kind) ON true
     WHERE d.removed_at IS NULL AND (d.id = job.device_id OR d.id IN (
         SELECT m.device_id FROM shardd.device_group_members m WHERE m.device_group = job.device_group AND job.device_id IS NULL));
    IF names IS NULL OR any_kind THEN
        RETURN true;
    END IF;
    sender := CASE WHEN job.device_id IS NULL THEN format('any device of the group %L', left(job.device_group, 80))
                   ELSE format('device %L', left(job.device_id, 80)) END;
    IF job.kind <> ALL (kinds) THEN
        RETURN shardd.refuse('kind',
            format('kind %L cannot be sent by %s (%s)', job.kind, sender, array_to_string(names, ', ')),
            format('Name another device, or one of the kinds that it sends: %s.',
                   (SELECT string_agg(kind, ', ' ORDER BY kind) FROM unnest(kinds) kind)));
    ELSIF NOT previews AND job.details ->> 'link_preview' IS NOT NULL THEN
        RETURN shardd.refuse('details',
            format('link_preview cannot be chosen for %s (%s)', sender, array_to_string(names, ', ')),
            'Leave it out: the platform decides whether a text shows a preview of its link.');
    END IF;
    RETURN true;
END $$;

-- How and when a job is to be sent.
CREATE FUNCTION shardd.check_terms(job shardd.jobs) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF job.class NOT IN ('marketing', 'service', 'reply') THEN
        RETURN shardd.refuse('class', format('class is %L', left(job.class, 80)),
            'One of: marketing (nobody waits for it), service (somebody does), reply (it answers a message).');
    ELSIF shardd.is_blank(job.dedupe_key) THEN
        RETURN shardd.refuse('dedupe_key', 'dedupe_key is empty',
            'Jobs with the same key are inserted once: leave it out (NULL) for a job without a key.');
    ELSIF shardd.is_blank(job.order_group) THEN
        RETURN shardd.refuse('order_group', 'order_group is empty',
            'Jobs of one group are sent in order: leave it out (NULL) for a job without a group.');
    ELSIF job.priority NOT BETWEEN -100 AND 100 THEN
        RETURN shardd.refuse('priority', format('priority is %s', job.priority), 'Between -100 and 100; higher is sooner.');
    ELSIF job.max_attempts NOT BETWEEN 1 AND 100 THEN
        RETURN shardd.refuse('max_attempts', format('max_attempts is %s', job.max_attempts), 'Between 1 and 100.');
    ELSIF job.on_doubt NOT IN ('hold', 'retry') THEN
        RETURN shardd.refuse('on_doubt', format('on_doubt is %L', left(job.on_doubt, 80)),
            'When it is unknown whether it was sent: hold (wait for an operator), or retry (send it again).');
    ELSIF job.on_unreadable NOT IN ('resend', 'report') THEN
        RETURN shardd.refuse('on_unreadable', format('on_unreadable is %L', left(job.on_unreadable, 80)),
            'When the recipient''s phone could not decrypt it: resend (send it again), or report; leave it out (NULL) for what the config says.');
    -- ord keeps run_at in 52 bits of microseconds beside the priority.
    ELSIF job.run_at NOT BETWEEN '1971-01-01 00:00:00+00' AND '2100-01-01 00:00:00+00' THEN
        RETURN shardd.refuse('run_at', format('run_at is %s', job.run_at), 'A time between the years 1971 and 2100.');
    ELSIF job.expires_at <= job.run_at THEN
        RETURN shardd.refuse('expires_at', format('expires_at is %s, not later than run_at, %s', job.expires_at, job.run_at),
            'It would never be sent: give a later time, or leave it out.');
    -- PostgreSQL cannot subtract from infinity.
    ELSIF job.expires_at > '2100-01-01 00:00:00+00' THEN
        RETURN shardd.refuse('expires_at', format('expires_at is %s', job.expires_at),
            'A time before the year 2100; leave it out for a job that never expires.');
    END IF;
    RETURN true;
END $$;

-- Checks the terms of a campaign.
CREATE FUNCTION shardd.check_campaign() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
BEGIN
    IF NEW.id !~ '^[A-Za-z0-9][A-Za-z0-9._:+@-]{0,63}$' THEN
        fine := shardd.refuse('id', format('id %L is not a valid campaign id', left(NEW.id, 80)),
            'At most 64 letters, digits and . _ : + @ -, starting with a letter or a digit.', 'campaigns');
    ELSIF octet_length(NEW.label) > 800 OR length(NEW.label) > 200 THEN
        fine := shardd.refuse('label', format('label has %s characters', length(NEW.label)), 'At most 200.', 'campaigns');
    ELSIF NEW.weight IS NULL OR NOT (NEW.weight > 0 AND NEW.weight <= 1000) THEN
        fine := shardd.refuse('weight', format('weight is %s', coalesce(NEW.weight::text, 'empty')),
            'Above 0 and up to 1000; of two campaigns on one device, 2 sends twice as much as 1.', 'campaigns');
    ELSIF NEW.device_cap <= 0 THEN
        fine := shardd.refuse('device_cap', format('device_cap is %s', NEW.device_cap),
            'Messages per device and day, at least 1; leave it out (NULL) for no cap.', 'campaigns');
    ELSIF NEW.state NOT IN ('running', 'paused', 'cancelled') THEN
        fine := shardd.refuse('state', format('state is %L', left(NEW.state, 80)), 'One of: running, paused, cancelled.', 'campaigns');
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER check_campaign BEFORE INSERT OR UPDATE ON shardd.campaigns
    FOR EACH ROW EXECUTE FUNCTION shardd.check_campaign();

-- People who asked to be forgotten: of each address of theirs only a keyed hash is kept, which still stops messages. It is a pseudonym:
-- whoever has the key can find out whether a given number is among them.
CREATE TABLE shardd.forgotten (
    pseudonym  bytea PRIMARY KEY,
    heard_at   timestamptz NOT NULL DEFAULT now(),  -- as of an opt-out: what they wrote before takes nothing back
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The key, made with the first person who is forgotten: two random blocks of SHA-256, as NMAC uses them (Bellare, Canetti and Krawczyk,
-- Keying hash functions for message authentication, 1996), because SQL has no XOR for the pads of HMAC. Without a row, looking for a
-- forgotten person costs a look at an empty table.
CREATE TABLE shardd.pseudonym_key (
    only_one   boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    inside     bytea NOT NULL CHECK (length(inside) = 64),
    outside    bytea NOT NULL CHECK (length(outside) = 64),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION shardd.pseudonym(address text) RETURNS bytea LANGUAGE sql STABLE
    RETURN (SELECT sha256(k.outside || sha256(k.inside || convert_to(address, 'UTF8'))) FROM shardd.pseudonym_key k);

CREATE FUNCTION shardd.is_forgotten(address text) RETURNS boolean LANGUAGE sql STABLE
    RETURN EXISTS (SELECT FROM shardd.pseudonym_key k
                     JOIN shardd.forgotten f ON f.pseudonym = sha256(k.outside || sha256(k.inside || convert_to(address, 'UTF8'))));

-- Whether an opt-out of this address covers this message.
CREATE FUNCTION shardd.opted_out(address text, class text, confirms boolean) RETURNS boolean
    LANGUAGE sql STABLE
    RETURN (EXISTS (SELECT FROM shardd.opt_outs o WHERE o.address = opted_out.address)
            -- shardd.is_forgotten, whose call would cost more than itself
            OR EXISTS (SELECT FROM shardd.pseudonym_key k JOIN shardd.forgotten f
                           ON f.pseudonym = sha256(k.outside || sha256(k.inside || convert_to(opted_out.address, 'UTF8')))))
           AND NOT confirms
           AND NOT coalesce((SELECT s.value ? class FROM shardd.settings s WHERE s.name = 'opt_outs.exempt'), false);

-- Runs with its owner's rights, because producers may not read the tables that it reads.
CREATE FUNCTION shardd.admit_job() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
    gone  timestamptz;
    state text;
    who   record;
    forgotten boolean;
    listed    boolean;
    is_new    boolean := NEW.address = '';  -- one that comes back from the archive was accepted once
BEGIN
    -- Nearly all rows are small: calling a function with the whole row would cost as much as everything else here.
    IF octet_length(NEW.body) > 65536 OR octet_length(NEW.media) > 65536 OR octet_length(NEW.reference) > 200
        OR octet_length(NEW.dedupe_key) > 200 OR octet_length(NEW.order_group) > 200 OR octet_length(NEW.file_name) > 255
        OR octet_length(NEW.mime_type) > 255 OR num_nonnulls(NEW.details, NEW.variables, NEW.metadata) > 0 THEN
        fine := shardd.check_sizes(NEW);
    END IF;
    IF (NEW.device_id IS NULL) = (NEW.device_group IS NULL) THEN
        fine := shardd.refuse('device_id',
            format('device_id and device_group are %s', CASE WHEN NEW.device_id IS NULL THEN 'empty' ELSE 'both given' END),
            'Name the device that sends it, or a device group, one of whose devices does.');
    END IF;
    IF NEW.device_id IS NOT NULL THEN
        SELECT d.removed_at INTO gone FROM shardd.devices d WHERE d.id = NEW.device_id;
        IF NOT FOUND OR gone IS NOT NULL THEN
            fine := shardd.refuse('device_id',
                format('device_id %L is %s', left(NEW.device_id, 80), CASE WHEN gone IS NULL THEN 'unknown' ELSE 'removed' END),
                'List the devices with: shardd device list. Add one with: shardd device add.', code => 'foreign_key_violation');
        END IF;
    ELSIF NOT EXISTS (SELECT FROM shardd.device_groups g WHERE g.id = NEW.device_group) THEN
        fine := shardd.refuse('device_group', format('device_group %L is unknown', left(NEW.device_group, 80)),
            'List the groups with: shardd group list. Add one with: shardd group add.', code => 'foreign_key_violation');
    END IF;
    IF NEW.campaign IS NOT NULL THEN
        SELECT c.state INTO state FROM shardd.campaigns c WHERE c.id = NEW.campaign;
        IF NOT FOUND THEN
            fine := shardd.refuse('campaign', format('campaign %L is unknown', left(NEW.campaign, 80)),
                'Create it with: INSERT INTO shardd.campaigns (id) VALUES (…), or: shardd campaign add.',
                code => 'foreign_key_violation');
        ELSIF state = 'cancelled' THEN
            fine := shardd.refuse('campaign', format('campaign %L is cancelled', NEW.campaign),
                'Create a new one with another id.');
        END IF;
    END IF;

    -- A job that comes back from the archive keeps its address, by the rules of now. Only the owner can give one.
    IF NEW.address <> '' THEN
        NEW.address := coalesce((shardd.read_number(NEW.address)).address, NEW.address);
    ELSE
        who := shardd.resolve(NEW.recipient, CASE WHEN NEW.recipient !~ '^(\+|[1-9][0-9]*@)'
                                                  THEN shardd.codes_of_job(NEW.device_id, NEW.device_group) END, 'jobs');
        NEW.address := coalesce(who.address, '');  -- so that NOT NULL names the recipient when it was left out
        NEW.number := nullif(who.number, who.address);
    END IF;

    IF NEW.variables IS NOT NULL AND NOT NEW.rendered THEN
        NEW.body := shardd.render_body(NEW.body, NEW.variables);
        NEW.rendered := true;
    ELSIF NOT NEW.rendered AND NEW.body ~ '\{[A-Za-z_][A-Za-z0-9_]*(\|[^{}]*)?\}' THEN
        fine := shardd.refuse('variables', format('the body has the variable %L, but variables is empty',
                                                  left(substring(NEW.body FROM '\{[A-Za-z_][A-Za-z0-9_]*(?:\|[^{}]*)?\}'), 80)),
            'Give variables, such as {"name": "Ada"}. To send literal braces, give {} and double them in the body: {{name}}.');
    END IF;
    fine := shardd.check_content(NEW);
    IF is_new AND (NEW.kind <> 'text' OR NEW.details IS NOT NULL) THEN
        fine := shardd.check_carried(NEW);
    END IF;
    IF NEW.kind = 'contact' THEN
        NEW.details := shardd.contact_details(NEW.details, NEW.device_id, NEW.device_group);
    END IF;
    fine := shardd.check_terms(NEW);

    -- Nearly always false. Written out, and in one statement: a call, or a second statement, would cost more than both looks.
    SELECT EXISTS (SELECT FROM shardd.pseudonym_key k JOIN shardd.forgotten f
                       ON f.pseudonym = sha256(k.outside || sha256(k.inside || convert_to(NEW.address, 'UTF8')))),
           EXISTS (SELECT FROM shardd.opt_outs o WHERE o.address = NEW.address)
      INTO forgotten, listed;
    NEW.opted_out := (forgotten OR listed) AND shardd.opted_out(NEW.address, NEW.class, NEW.confirms);
    IF NEW.opted_out AND forgotten THEN
        NEW := shardd.without_person(NEW);
    END IF;

    -- Only the first unsent job of an order group may be in a lane. The group's row in order_groups is locked until the transaction
    -- ends, so that two transactions that add to one group see each other. Not with an advisory lock, which any login could take.
    -- Adding to several groups takes several locks, in the order of the rows; of two transactions that do so in different orders,
    -- PostgreSQL ends one with a deadlock error, and nothing of it is inserted.
    IF NEW.order_group IS NOT NULL THEN
        LOOP
            PERFORM FROM shardd.order_groups g WHERE g.name = NEW.order_group AND g.producer = NEW.producer FOR UPDATE;
            EXIT WHEN FOUND;
            INSERT INTO shardd.order_groups (producer, name) VALUES (NEW.producer, NEW.order_group)
                ON CONFLICT (name, producer) DO NOTHING;
            EXIT WHEN FOUND;
        END LOOP;
        NEW.held := EXISTS (SELECT FROM shardd.jobs j WHERE j.producer = NEW.producer AND j.order_group = NEW.order_group
                               AND (j.id < NEW.id OR NOT j.held))
            OR EXISTS (SELECT FROM shardd.archive a WHERE a.producer = NEW.producer AND a.order_group = NEW.order_group
                          AND a.state <> 'sent' AND a.id < NEW.id);
    END IF;
    NEW.scheduled := NEW.held OR NEW.opted_out OR NEW.run_at > now();
    NEW.due_at := CASE WHEN NEW.scheduled AND NOT NEW.held THEN NEW.run_at END;

    -- A used key makes the INSERT do nothing, so that producers can safely repeat it. A job that an operator retries comes back under
    -- its own id.
    IF NEW.dedupe_key IS NOT NULL THEN
        INSERT INTO shardd.dedupe_keys AS k (producer, key, job_id) VALUES (NEW.producer, NEW.dedupe_key, NEW.id)
            ON CONFLICT (key, producer) DO UPDATE SET job_id = EXCLUDED.job_id WHERE k.job_id = EXCLUDED.job_id;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER admit_job BEFORE INSERT ON shardd.jobs FOR EACH ROW EXECUTE FUNCTION shardd.admit_job();

-- The same checks for changes of a job's content.
CREATE FUNCTION shardd.check_job() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
BEGIN
    fine := shardd.check_sizes(NEW);
    fine := shardd.check_content(NEW);
    fine := shardd.check_carried(NEW);
    IF NEW.kind = 'contact' THEN
        NEW.details := shardd.contact_details(NEW.details, NEW.device_id, NEW.device_group);
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER check_job BEFORE UPDATE OF kind, body, variables, media, file_name, mime_type, details, reference, metadata
    ON shardd.jobs FOR EACH ROW EXECUTE FUNCTION shardd.check_job();

-- Ends jobs to recipients who opted out, and wakes the routers for the others. NOTIFY serialises the commits of all writers, so only one
-- of them at a time notifies; the routers' poll finds what a missing notification would have announced. It has no payload: anybody who
-- can connect can notify, so a router trusts only what it reads. The lock is advisory, and any login may hold it: then there are no
-- notifications, and new jobs are found by the poll, a fraction of a second later.
CREATE FUNCTION shardd.announce_jobs() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM added WHERE opted_out) THEN
        PERFORM shardd.end_jobs(array(SELECT id FROM added WHERE opted_out), 'opted_out', 'the recipient opted out', 'opted_out');
    END IF;
    IF pg_try_advisory_xact_lock(hashtext('shardd.announce_jobs')) THEN
        PERFORM shardd.announce('shardd_jobs');
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER announce_jobs AFTER INSERT ON shardd.jobs REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.announce_jobs();
