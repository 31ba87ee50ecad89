-- Revocations: a job of kind `revoke` deletes the message of a job that was sent, for everyone. It is a job like any other, and always one
-- of the device that sent the message, because only that device's account can delete it. What it needs of the other job, the id of the
-- message, is read when it is claimed.

-- With which account a device has sent since when. WhatsApp lets every linked device of an account delete what another one sent, so the
-- account counts, not the session: its number, or, of a device without sessions, its transport.
CREATE TABLE shardd.device_accounts (
    device_id text NOT NULL,
    since     timestamptz NOT NULL DEFAULT now(),
    account   text NOT NULL,
    PRIMARY KEY (device_id, since)
);

INSERT INTO shardd.device_accounts (device_id, since, account)
SELECT d.id, '-infinity', coalesce(split_part(split_part(d.session, '@', 1), ':', 1), d.transport)
  FROM shardd.devices d WHERE d.session IS NOT NULL OR d.transport <> 'whatsapp';

-- The account of a device at a time; NULL: it is not known.
CREATE FUNCTION shardd.account_of(device_id text, at timestamptz) RETURNS text LANGUAGE sql STABLE
    RETURN (SELECT a.account FROM shardd.device_accounts a
             WHERE a.device_id = account_of.device_id AND a.since <= account_of.at ORDER BY a.since DESC LIMIT 1);

CREATE FUNCTION shardd.remember_account() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text := coalesce(split_part(split_part(NEW.session, '@', 1), ':', 1), CASE WHEN NEW.transport <> 'whatsapp' THEN NEW.transport END);
BEGIN
    INSERT INTO shardd.device_accounts (device_id, account)
    SELECT NEW.id, found WHERE found <> coalesce(shardd.account_of(NEW.id, 'infinity'), '')
    ON CONFLICT (device_id, since) DO UPDATE SET account = EXCLUDED.account;
    RETURN NULL;
END $$;

CREATE TRIGGER remember_account AFTER INSERT OR UPDATE OF session, transport ON shardd.devices
    FOR EACH ROW EXECUTE FUNCTION shardd.remember_account();

-- Whether a revocation keeps others from being added: it waits, is in flight, or was or may have been sent.
CREATE FUNCTION shardd.revocation_stands(job_id bigint) RETURNS boolean LANGUAGE sql STABLE
    RETURN EXISTS (SELECT FROM shardd.jobs j WHERE j.id = job_id)
        OR EXISTS (SELECT FROM shardd.archive a WHERE a.id = job_id AND a.state IN ('sent', 'in_doubt'));

-- Jobs whose messages were or may have been sent, with what keeps each from being revoked, if there is something, in one word. The last two
-- are for operators: of a producer's INSERT, a repeated one is refused by allow_one_revocation, and one to who opted out ends as such.
CREATE VIEW shardd.revocable AS
    SELECT a.id, a.state, a.settled_at, a.settled_xid, a.device_id, a.class, a.campaign, a.order_group, a.reference, a.error_class, a.message_id,
           a.kind, a.revokes,
           CASE WHEN a.kind = 'revoke' THEN 'revocation'
                WHEN a.message_id IS NULL THEN CASE a.state WHEN 'sent' THEN 'no_id' ELSE 'in_doubt' END
                WHEN d.id IS NULL OR d.removed_at IS NOT NULL THEN 'device'
                WHEN t.kinds <> '{}' AND 'revoke' <> ALL (t.kinds) THEN 'transport'
                WHEN shardd.account_of(a.device_id, coalesce(a.claimed_at, a.settled_at))
                     IS DISTINCT FROM shardd.account_of(a.device_id, 'infinity') THEN 'account'
                WHEN r.job_id IS NOT NULL AND shardd.revocation_stands(r.job_id) THEN 'revoked'
                WHEN shardd.opted_out(a.address, a.class, false) THEN 'opted_out' END AS obstacle
      FROM shardd.archive a
      LEFT JOIN shardd.devices d ON d.id = a.device_id
      LEFT JOIN shardd.transports t ON t.name = d.transport
      LEFT JOIN shardd.revocations r ON r.revokes = a.id
     WHERE a.state IN ('sent', 'in_doubt');

-- The id of the message that a revocation of this device deletes; NULL: it cannot delete it any more.
CREATE FUNCTION shardd.message_to_revoke(job bigint, device_id text) RETURNS text LANGUAGE sql STABLE
    RETURN (SELECT v.message_id FROM shardd.revocable v
             WHERE v.id = job AND v.device_id = message_to_revoke.device_id
               AND (v.obstacle IS NULL OR v.obstacle IN ('revoked', 'opted_out')));

-- Refuses the revocation of a job for one of the reasons of `revocable`.
CREATE FUNCTION shardd.refuse_revocation(job bigint, device_id text, obstacle text) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sender text := (SELECT format('device %L (%s)', d.id, d.transport) FROM shardd.devices d WHERE d.id = device_id);
BEGIN
    RETURN CASE obstacle
        WHEN 'revocation' THEN shardd.refuse('revokes', format('job %s is itself a revocation', job),
            'What was deleted cannot be brought back: send it again as a new job.')
        WHEN 'in_doubt' THEN shardd.refuse('revokes', format('job %s is in doubt, and the id of its message is not known', job),
            'Without it, nothing can be deleted. A journal or a report may still say that it was sent, with the id; a person who decides it '
            'does not.')
        WHEN 'no_id' THEN shardd.refuse('revokes', format('job %s is sent, but the id of its message is not known', job),
            'Without it, nothing can be deleted: a person decided that it was sent, or its recipient was forgotten.')
        WHEN 'device' THEN shardd.refuse('revokes', format('device %L, which sent job %s, was removed', left(device_id, 80), job),
            'Bring it back with the same account: shardd device add.')
        WHEN 'transport' THEN shardd.refuse('revokes', format('job %s was sent by %s, which cannot revoke messages', job, sender),
            format('Only devices of these transports can: %s.', (
                SELECT string_agg(t.name, ', ' ORDER BY t.name) FROM shardd.transports t WHERE 'revoke' = ANY (t.kinds))))
        WHEN 'account' THEN shardd.refuse('revokes', format('job %s was sent by another account than the one that %s has now', job, sender),
            'Only the account that sent a message can delete it: pair the device with its number again.')
        ELSE true END;
END $$;

-- A revocation takes device, recipient and class from the job whose message it deletes. It is in no campaign, because one that is paused or
-- cancelled would hold it back. Its name lets it run before accept_producer, which then asks whether the session may use that device; the
-- jobs of a device are seen by all who may use it. A job that comes back from the archive was accepted once, and is looked at when it is
-- claimed.
CREATE FUNCTION shardd.admit_revocation() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound     jsonb := shardd.bindings();
    o         shardd.all_outcomes;
    canonical text;  -- the recipient, as every release reads it
    fine      boolean;
BEGIN
    IF NEW.revokes IS NULL THEN
        fine := shardd.check_content(NEW);
    END IF;
    SELECT * INTO o FROM shardd.all_outcomes one WHERE one.id = NEW.revokes;
    IF o.id IS NULL OR NOT coalesce(bound ?| array['device:' || o.device_id, 'group:' || o.device_group, 'campaign:' || o.campaign], true) THEN
        fine := shardd.refuse('revokes', format('revokes %s is not a job that %s can see', NEW.revokes, session_user),
            'Give the id of a job of shardd.outcomes that was sent; finished jobs are deleted after retention.finished.',
            code => 'foreign_key_violation');
    ELSIF NOT coalesce(bound ? ('device:' || o.device_id), true) THEN
        fine := shardd.refuse('revokes', format('job %s was sent by device %L, which is not bound to %s', o.id, o.device_id, shardd.bound_as()),
            'Ask an operator to revoke it (shardd job revoke), or to bind the device: shardd producer add.', code => 'insufficient_privilege');
    ELSIF o.state IN ('queued', 'scheduled') THEN
        fine := shardd.refuse('revokes', format('job %s is %s: its message was not sent', o.id, o.state),
            format('Cancel it instead: shardd job cancel %s.', o.id));
    ELSIF o.state = 'sending' THEN
        fine := shardd.refuse('revokes', format('job %s is being sent', o.id), 'Revoke it once it is sent.');
    ELSIF o.state NOT IN ('sent', 'in_doubt') THEN
        fine := shardd.refuse('revokes', format('job %s is %s: there is nothing to delete', o.id, o.state),
            'Only the message of a job that is sent can be revoked.');
    END IF;
    fine := shardd.refuse_revocation(o.id, o.device_id, (SELECT v.obstacle FROM shardd.revocable v WHERE v.id = o.id));

    SELECT coalesce('+' || a.number, CASE WHEN strpos(a.address, '@') > 0 THEN '' ELSE '+' END || a.address) INTO canonical
      FROM shardd.archive a WHERE a.id = o.id;
    IF NEW.device_group IS NOT NULL OR NEW.device_id <> o.device_id THEN
        fine := shardd.refuse(CASE WHEN NEW.device_group IS NULL THEN 'device_id' ELSE 'device_group' END,
            format('job %s was sent by device %L, and only that device can revoke it', o.id, o.device_id),
            'Leave device_id and device_group empty: the device of the job revokes it.');
    ELSIF NEW.recipient NOT IN (o.recipient, canonical) THEN
        fine := shardd.refuse('recipient', format('job %s is not for recipient %L', o.id, left(NEW.recipient, 80)),
            'Leave recipient empty: the revocation goes to the recipient of the job.');
    ELSIF NEW.class NOT IN ('marketing', o.class) THEN
        fine := shardd.refuse('class', format('class is %L, but job %s is of class %L', left(NEW.class, 80), o.id, o.class),
            'Leave class out: a revocation has the class of the job.');
    ELSIF NEW.campaign IS NOT NULL THEN
        fine := shardd.refuse('campaign', format('campaign is %L, but a revocation is in no campaign', left(NEW.campaign, 80)),
            'Leave it out (NULL): a campaign that is paused or cancelled would hold the revocation back.');
    ELSIF NEW.reply_to IS NOT NULL THEN
        fine := shardd.refuse('reply_to', 'reply_to is given, but a revocation answers no message', 'Leave it out (NULL).');
    END IF;
    NEW.device_id := o.device_id;
    NEW.recipient := canonical;
    NEW.class := o.class;
    RETURN NEW;
END $$;

CREATE TRIGGER accept_deletion BEFORE INSERT ON shardd.jobs FOR EACH ROW WHEN (NEW.kind = 'revoke' AND NEW.address = '')
    EXECUTE FUNCTION shardd.admit_revocation();

-- At most one revocation of a job waits or was sent. It runs after admit_job (triggers work in the order of their names), which does
-- nothing for a dedupe key that was used. The job that repeats an unreadable revocation takes its place.
CREATE FUNCTION shardd.allow_one_revocation() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    other bigint;
    fine  boolean;
BEGIN
    LOOP
        INSERT INTO shardd.revocations (revokes, job_id) VALUES (NEW.revokes, NEW.id) ON CONFLICT (revokes) DO NOTHING;
        EXIT WHEN FOUND;
        SELECT r.job_id INTO other FROM shardd.revocations r WHERE r.revokes = NEW.revokes FOR UPDATE;
        CONTINUE WHEN NOT FOUND;  -- retention deleted it
        IF other NOT IN (NEW.id, coalesce(NEW.resend_of, NEW.id)) AND shardd.revocation_stands(other) THEN
            fine := shardd.refuse('revokes', format('job %s is revoked by job %s already', NEW.revokes, other),
                'One revocation is enough: see what became of it in shardd.outcomes.', code => 'unique_violation');
        END IF;
        UPDATE shardd.revocations r SET job_id = NEW.id WHERE r.revokes = NEW.revokes;
        EXIT;
    END LOOP;
    RETURN NEW;
END $$;

CREATE TRIGGER allow_one_revocation BEFORE INSERT ON shardd.jobs FOR EACH ROW WHEN (NEW.revokes IS NOT NULL)
    EXECUTE FUNCTION shardd.allow_one_revocation();

-- Neither what a revocation deletes nor its device ever changes.
CREATE FUNCTION shardd.keep_revocation() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
BEGIN
    fine := shardd.refuse(CASE WHEN NEW.revokes IS DISTINCT FROM OLD.revokes THEN 'revokes' ELSE 'device_id' END,
        format('job %s deletes the message of job %s, which only device %L can do', OLD.id, OLD.revokes, OLD.device_id),
        'A revocation cannot be changed: cancel it, and insert another one.');
    RETURN NEW;
END $$;

CREATE TRIGGER keep_revocation BEFORE UPDATE OF revokes, device_id ON shardd.jobs
    FOR EACH ROW WHEN (NEW.revokes IS DISTINCT FROM OLD.revokes OR (OLD.revokes IS NOT NULL AND NEW.device_id IS DISTINCT FROM OLD.device_id))
    EXECUTE FUNCTION shardd.keep_revocation();

-- Adds a revocation of each of these jobs, ahead of what waits. One that a trigger refuses (something changed a moment ago) does not keep
-- the others back: `refusal` is the message.
CREATE FUNCTION shardd.revoke_jobs(ids bigint[]) RETURNS TABLE (job bigint, refusal text)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one bigint;
BEGIN
    RETURN QUERY INSERT INTO shardd.jobs AS j (kind, revokes, priority) SELECT 'revoke', id, 100 FROM unnest(ids) id
                 RETURNING j.revokes, NULL::text;
EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
    FOREACH one IN ARRAY ids LOOP
        BEGIN
            RETURN QUERY INSERT INTO shardd.jobs AS j (kind, revokes, priority) VALUES ('revoke', one, 100) RETURNING j.revokes, NULL::text;
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
            GET STACKED DIAGNOSTICS refusal = MESSAGE_TEXT;
            job := one;
            RETURN NEXT;
        END;
    END LOOP;
END $$;
