-- The inbox: what people write to devices. A message is a row here, and an event in the same transaction. Not every producer reads it:
-- members of shardd_inbox read everything, and bound producers what is written to their devices.

-- What the sender claims is kept as it is: no value here is one that shardd relies on.
CREATE TABLE shardd.messages (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id   text NOT NULL,
    message_id  text NOT NULL,             -- as the platform knows it; unique only for one sender
    sender      text NOT NULL,             -- the best address of who wrote it: a number with +, or ID@lid; empty: unknown
    number      text,                      -- the sender's phone number; NULL: WhatsApp hides it
    lid         text,                      -- the address by which WhatsApp hides the number
    name        text,                      -- as the sender calls themselves
    chat        text,                      -- the group (ID@g.us); NULL: a chat of two
    own         boolean NOT NULL,          -- written on the device's own phone; the sender is who it was written to
    status      boolean NOT NULL,          -- posted as a status
    history     boolean NOT NULL DEFAULT false,  -- written before the device was paired: it causes no event
    kind        text NOT NULL,
    text        text NOT NULL,             -- text or caption; of a reaction the emoji, of a choice its title
    choice      text,                      -- the id of the button or list entry
    quoted_id   text,                      -- the message that it quotes, reacts to, edits or deletes
    job_id      bigint,                    -- the job that this message was
    details     jsonb,                     -- of a location or a contact
    media_type  text,                      -- MIME type
    media_size  bigint,                    -- bytes
    media_name  text,
    media_node  text,                      -- the node that downloads the file, or has it; NULL: it is not downloaded
    media_path  text,                      -- of the file on that node; NULL: it is not there (yet)
    media_error text,                      -- why not; the next attempt may succeed
    opt_out     boolean NOT NULL,          -- it was taken as an opt-out
    written_at  timestamptz NOT NULL,      -- by the sender's clock or the platform's
    received_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (device_id, message_id, sender)
);

CREATE INDEX messages_received ON shardd.messages (received_at);
CREATE INDEX messages_device ON shardd.messages (device_id, id);
CREATE INDEX messages_sender ON shardd.messages (sender, id);
CREATE INDEX messages_job ON shardd.messages (job_id) WHERE job_id IS NOT NULL;

-- The message as an event shows it.
CREATE FUNCTION shardd.message_data(message shardd.messages) RETURNS jsonb LANGUAGE sql STABLE
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'id', message.id, 'device_id', message.device_id, 'message_id', message.message_id, 'sender', message.sender,
        'number', message.number, 'lid', message.lid, 'name', message.name, 'chat', message.chat, 'own', message.own,
        'status', message.status, 'kind', message.kind, 'text', message.text, 'choice', message.choice,
        'quoted_id', message.quoted_id, 'job_id', message.job_id, 'details', message.details,
        'media', CASE WHEN num_nonnulls(message.media_type, message.media_name, message.media_size, message.media_error) > 0
                      THEN jsonb_build_object('type', message.media_type, 'size', message.media_size, 'name', message.media_name,
                                              'node', message.media_node, 'path', message.media_path, 'error', message.media_error) END,
        'opt_out', message.opt_out, 'written_at', shardd.iso_time(message.written_at),
        'received_at', shardd.iso_time(message.received_at)));

CREATE FUNCTION shardd.record_messages() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF shardd.events_enabled() THEN
        INSERT INTO shardd.outbox (kind, device_id, detail)
        SELECT 'message.received', m.device_id, shardd.message_data(m) FROM arrived m WHERE NOT m.history ORDER BY m.id;
        IF FOUND THEN
            PERFORM shardd.announce_events();
        END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER record_messages AFTER INSERT ON shardd.messages REFERENCING NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.record_messages();

-- Refuses a session that reads nothing of the inbox.
CREATE FUNCTION shardd.refuse_inbox() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    RETURN shardd.refuse('id', format('%s may not read the inbox', session_user),
        format('An operator can let it read all messages: GRANT shardd_inbox TO %I; or those of its devices: shardd producer add. '
               'In the embedded database, connect as the role inbox: shardd db dsn --role=inbox.', session_user),
        'inbox', 'insufficient_privilege');

-- Whether this session reads the whole inbox (reads_inbox), when the statement is planned, like sees_all; refuses a session that reads
-- nothing of it.
CREATE FUNCTION shardd.sees_inbox() RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF shardd.bound_as() IS NOT NULL THEN
        RETURN false;
    ELSIF shardd.reads_inbox() THEN
        RETURN true;
    END IF;
    RETURN shardd.refuse_inbox();
END $$;

CREATE VIEW shardd.bound_inbox WITH (security_barrier) AS
    SELECT * FROM shardd.messages WHERE coalesce((SELECT shardd.bindings()) ? ('device:' || device_id), false)
     ORDER BY id DESC OFFSET 0;
CREATE VIEW shardd.inbox AS
    (SELECT * FROM shardd.messages WHERE shardd.sees_inbox() AND (SELECT shardd.reads_inbox()) ORDER BY id DESC)
    UNION ALL (SELECT * FROM shardd.bound_inbox WHERE NOT shardd.sees_inbox() ORDER BY id DESC);

-- A message by its id, if the session may read it. A bound session cannot use an index through shardd.inbox.
CREATE FUNCTION shardd.message(id bigint) RETURNS SETOF shardd.messages ROWS 1 LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound jsonb := shardd.bindings();
BEGIN
    -- Not sees_inbox: the session keeps the plan of this expression, with its answer.
    IF bound IS NULL AND NOT shardd.reads_inbox() THEN
        PERFORM shardd.refuse_inbox();
    END IF;
    RETURN QUERY SELECT m.* FROM shardd.messages m WHERE m.id = message.id AND coalesce(bound ? ('device:' || m.device_id), true);
END $$;

-- A job that answers a message: it takes device and recipient from the message if they are empty, and a copy of what it quotes, because
-- the message may be deleted before the job is sent. It runs before accept_producer and admit_job (triggers work in the order of their
-- names), so that what it fills in is checked like what a producer gives. Reactions, edits and deletions cannot be quoted, and
-- neither can what has no id of the platform.
CREATE FUNCTION shardd.admit_answer() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound jsonb := shardd.bindings();
    m     shardd.messages;
    numbers text;  -- the address of the sender's number
    fine  boolean;
BEGIN
    SELECT * INTO m FROM shardd.messages one WHERE one.id = NEW.reply_to;
    IF m.id IS NULL OR NOT coalesce(bound ? ('device:' || m.device_id), shardd.reads_inbox()) THEN
        fine := shardd.refuse('reply_to', format('reply_to %s is not a message that %s can read', NEW.reply_to, session_user),
            'Give the id of a row of shardd.inbox: messages are deleted after inbox.keep, and read by members of shardd_inbox '
            'and by producers that are bound to the device.', code => 'foreign_key_violation');
    ELSIF NEW.device_group IS NOT NULL OR NEW.device_id <> m.device_id THEN
        fine := shardd.refuse(CASE WHEN NEW.device_group IS NULL THEN 'device_id' ELSE 'device_group' END,
            format('message %s was written to device %L, and only that device can answer it', NEW.reply_to, m.device_id),
            'Leave device_id and device_group empty: the device of the message sends the answer.');
    END IF;
    NEW.device_id := m.device_id;
    numbers := (shardd.read_number(substr(m.number, 2))).address;
    NEW.recipient := coalesce(NEW.recipient, m.chat, CASE WHEN numbers IS NOT NULL THEN m.number END, m.lid, nullif(m.sender, ''));
    IF NEW.recipient IS NULL THEN
        fine := shardd.refuse('recipient', format('the sender of message %s is not known', NEW.reply_to), 'Give the recipient.');
    ELSIF NEW.recipient = ANY (array[coalesce(m.chat, m.number), m.lid]) THEN
        NULL;
    ELSIF (shardd.resolve(NEW.recipient, CASE WHEN left(NEW.recipient, 1) <> '+' THEN shardd.codes_of_job(m.device_id, NULL) END, 'jobs')
          ).address <> coalesce(m.chat, numbers, m.sender) THEN
        fine := shardd.refuse('recipient', format('message %s is not of recipient %L', NEW.reply_to, left(NEW.recipient, 80)),
            'Leave recipient empty: the answer goes to the chat of the message.');
    END IF;
    NEW.quote := CASE WHEN m.kind IN ('reaction', 'edit', 'delete', 'preference') OR m.message_id LIKE 'no-id-%' THEN '{}' ELSE jsonb_build_object(
        'id', m.message_id, 'sender', coalesce(m.lid, m.sender), 'text', left(m.text, 500), 'kind', m.kind) END;
    RETURN NEW;
END $$;

CREATE TRIGGER accept_answer BEFORE INSERT ON shardd.jobs FOR EACH ROW WHEN (NEW.reply_to IS NOT NULL AND NEW.quote IS NULL)
    EXECUTE FUNCTION shardd.admit_answer();
