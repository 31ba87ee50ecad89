-- Rights by device: an operator binds a role to devices, device groups and campaigns. What that means for the role is said here,
-- once, and for people in the README ("Who may insert what").
--
-- Inserting. A job of a bound role names a device or a device group that is bound to it, and no campaign but those that are bound to
-- it. A role that has been bound to campaigns only may use every device, and each of its jobs names one of these campaigns. To a role
-- with several sets of bindings (see below) a job is allowed if one set allows it. Whether something that is not bound exists, the
-- answer does not tell. Bound roles make no campaigns. Everybody may opt people out.
--
-- Seeing. A bound role sees every job, event and reply whose device, device group or campaign is bound to it, whoever inserted it; its
-- campaigns; and the opt-outs that it wrote itself. A group stands for the jobs that name it, not for its devices.
--
-- Keys. Dedupe keys and order groups of a bound role are its own; all that are not bound share theirs.
--
-- Who is bound. It counts who logged in (session_user): neither SET ROLE nor a function that runs with another's rights frees anybody.
-- A login is bound by its own bindings, and by those of every role without LOGIN that it is a member of, each set by itself. A role
-- with LOGIN binds nobody but itself: before PostgreSQL 16 it may make anybody a member of itself without asking. SET ROLE narrows:
-- to the sets of the role that was set, as far as these are among those of the login; a login that is not bound takes over
-- the sets of the role that it sets, which suits a connection pool that works for several. Superusers and the members of the role
-- that owns this schema are never bound by their login. A role that has lost all its bindings stays bound, to nothing, until an
-- operator removes it as a whole.

CREATE TABLE shardd.producers (
    role       text PRIMARY KEY,           -- a name, not an oid: it must survive a dump
    is_group   boolean NOT NULL,           -- it cannot log in: its bindings are those of its members
    any_device boolean NOT NULL,           -- it was never bound to a device or a device group
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shardd.producer_devices (
    role      text NOT NULL REFERENCES shardd.producers (role) ON DELETE CASCADE,
    device_id text NOT NULL REFERENCES shardd.devices (id),
    PRIMARY KEY (role, device_id)
);

CREATE TABLE shardd.producer_groups (
    role         text NOT NULL REFERENCES shardd.producers (role) ON DELETE CASCADE,
    device_group text NOT NULL REFERENCES shardd.device_groups (id) ON DELETE CASCADE,
    PRIMARY KEY (role, device_group)
);

CREATE TABLE shardd.producer_campaigns (
    role     text NOT NULL REFERENCES shardd.producers (role) ON DELETE CASCADE,
    campaign text NOT NULL REFERENCES shardd.campaigns (id),
    PRIMARY KEY (role, campaign)
);

CREATE INDEX producers_groups ON shardd.producers (role) WHERE is_group;
CREATE INDEX producer_groups_group ON shardd.producer_groups (device_group);

-- The bound roles whose bindings count for `login`; empty: none.
CREATE FUNCTION shardd.bound_roles(login text) RETURNS text[] LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    roles text[] := array(SELECT p.role FROM shardd.producers p WHERE p.role = login
                          UNION
                          SELECT p.role FROM shardd.producers p
                           WHERE p.is_group AND pg_has_role(login, to_regrole(quote_ident(p.role)), 'MEMBER'));
BEGIN
    IF roles <> '{}' AND pg_has_role(login, (SELECT c.relowner FROM pg_class c WHERE c.oid = 'shardd.producers'::regclass), 'MEMBER') THEN
        RETURN '{}';
    END IF;
    RETURN roles;
END $$;

-- As whom this session is bound, which is the name that its keys belong to, and the bound roles whose bindings count for it.
-- `name` is NULL in a session that is not bound.
CREATE FUNCTION shardd.session_binding(OUT name text, OUT roles text[]) LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    set_role text := current_setting('role');
    narrowed text[];
BEGIN
    IF NOT EXISTS (SELECT FROM shardd.producers) THEN
        RETURN;
    END IF;
    roles := shardd.bound_roles(session_user);
    IF set_role NOT IN ('none', session_user) THEN
        narrowed := shardd.bound_roles(set_role);
        IF roles <> '{}' THEN
            narrowed := array(SELECT unnest(narrowed) INTERSECT SELECT unnest(roles));
        END IF;
        IF narrowed <> '{}' THEN
            name := set_role;
            roles := narrowed;
            RETURN;
        END IF;
    END IF;
    IF roles <> '{}' THEN
        name := session_user;
    END IF;
END $$;

-- The two functions that views, policies and producers themselves ask. The filter of a row is always:
--   (SELECT shardd.bound_as() IS NULL) OR device_id IN (SELECT shardd.bindings('device'))
--   OR device_group IN (SELECT shardd.bindings('group')) OR campaign IN (SELECT shardd.bindings('campaign'))
-- which is asked once for a statement, and of a row costs three look-ups in a hash table at most. What has one column less leaves out
-- its line.

-- As whom this session is bound; NULL: it is not.
CREATE FUNCTION shardd.bound_as() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (shardd.session_binding()).name;
END $$;

-- What is bound to this session, of one kind: device, group or campaign.
CREATE FUNCTION shardd.bindings(kind text) RETURNS SETOF text LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    theirs text[] := (shardd.session_binding()).roles;
BEGIN
    RETURN QUERY
        SELECT b.device_id FROM shardd.producer_devices b WHERE kind = 'device' AND b.role = ANY (theirs)
        UNION
        SELECT b.device_group FROM shardd.producer_groups b WHERE kind = 'group' AND b.role = ANY (theirs)
        UNION
        SELECT b.campaign FROM shardd.producer_campaigns b WHERE kind = 'campaign' AND b.role = ANY (theirs);
END $$;

-- Whose job this is: the name under which this session is bound, if it may insert it. Called by the gate, for sessions that may be
-- bound.
CREATE FUNCTION shardd.admit_producer(job shardd.jobs) RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound record := shardd.session_binding();
    sends boolean;
    joins boolean;
    fine  boolean;
BEGIN
    IF bound.name IS NULL THEN
        RETURN job.producer;
    END IF;
    SELECT bool_or(s.sends), bool_or(s.sends AND s.joins) INTO sends, joins
      FROM (SELECT p.any_device
                   OR EXISTS (SELECT FROM shardd.producer_devices b WHERE b.role = p.role AND b.device_id = job.device_id)
                   OR EXISTS (SELECT FROM shardd.producer_groups b WHERE b.role = p.role AND b.device_group = job.device_group)
                       AS sends,
                   CASE WHEN job.campaign IS NULL THEN NOT p.any_device
                        ELSE EXISTS (SELECT FROM shardd.producer_campaigns b WHERE b.role = p.role AND b.campaign = job.campaign)
                        END AS joins
              FROM shardd.producers p WHERE p.role = ANY (bound.roles)) s;
    IF joins THEN
        RETURN bound.name;
    ELSIF NOT sends THEN
        fine := shardd.refuse(CASE WHEN job.device_id IS NULL THEN 'device_group' ELSE 'device_id' END,
            CASE WHEN job.device_id IS NULL THEN format('device_group %L is not bound to %s', job.device_group, bound.name)
                 ELSE format('device_id %L is not bound to %s', job.device_id, bound.name) END,
            'Yours are: SELECT shardd.bindings(''device''), shardd.bindings(''group''). An operator adds more: shardd producer add.',
            code => 'insufficient_privilege');
    ELSIF job.campaign IS NULL THEN
        fine := shardd.refuse('campaign', format('campaign is empty, but %s is bound to campaigns', bound.name),
            'Name one of: SELECT shardd.bindings(''campaign'').', code => 'insufficient_privilege');
    END IF;
    fine := shardd.refuse('campaign', format('campaign %L is not bound to %s', job.campaign, bound.name),
        'Yours are: SELECT shardd.bindings(''campaign''). An operator adds more: shardd producer add.',
        code => 'insufficient_privilege');
    RETURN NULL;
END $$;

-- What a producer reads. A function in the WHERE of a query is asked only of rows that passed the filter. ORDER BY, because the
-- planner passes no wish for an order through the barrier, and the newest jobs are what people ask for.
CREATE VIEW shardd.outcomes WITH (security_barrier) AS
    SELECT * FROM shardd.all_outcomes o
     WHERE (SELECT shardd.bound_as() IS NULL) OR o.device_id IN (SELECT shardd.bindings('device'))
           OR o.device_group IN (SELECT shardd.bindings('group')) OR o.campaign IN (SELECT shardd.bindings('campaign'))
     ORDER BY o.id DESC;

CREATE VIEW shardd.events WITH (security_barrier) AS
    SELECT id, at, kind, job_id, device_id, campaign, reference, data, xid FROM shardd.all_events e
     WHERE (SELECT shardd.bound_as() IS NULL) OR e.device_id IN (SELECT shardd.bindings('device'))
           OR e.device_group IN (SELECT shardd.bindings('group')) OR e.campaign IN (SELECT shardd.bindings('campaign'));

-- What producers reach without a view. RETURNING needs SELECT, so that an INSERT is shown its own row.
CREATE POLICY jobs_seen ON shardd.jobs FOR SELECT
    USING ((SELECT shardd.bound_as() IS NULL) OR device_id IN (SELECT shardd.bindings('device'))
           OR device_group IN (SELECT shardd.bindings('group')) OR campaign IN (SELECT shardd.bindings('campaign')));
CREATE POLICY jobs_added ON shardd.jobs FOR INSERT WITH CHECK (true);
CREATE POLICY campaigns_seen ON shardd.campaigns FOR SELECT
    USING ((SELECT shardd.bound_as() IS NULL) OR id IN (SELECT shardd.bindings('campaign')));
CREATE POLICY campaigns_added ON shardd.campaigns FOR INSERT WITH CHECK (true);
CREATE POLICY opt_outs_seen ON shardd.opt_outs FOR SELECT
    USING ((SELECT shardd.bound_as() IS NULL) OR created_by = (SELECT shardd.bound_as()));
CREATE POLICY opt_outs_added ON shardd.opt_outs FOR INSERT WITH CHECK (true);

-- Row security is on while there is anybody whom it holds: it would keep all producers from COPY.
CREATE FUNCTION shardd.guard_tables() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    guarded   boolean;
    unguarded regclass;
BEGIN
    LOCK TABLE shardd.producers IN SHARE ROW EXCLUSIVE MODE;  -- of two at once, the second must see what the first did
    guarded := EXISTS (SELECT FROM shardd.producers);
    FOR unguarded IN
        SELECT c.oid FROM pg_class c
         WHERE c.oid IN ('shardd.jobs'::regclass, 'shardd.campaigns'::regclass, 'shardd.opt_outs'::regclass)
           AND c.relrowsecurity <> guarded
    LOOP
        EXECUTE format('ALTER TABLE %s %s ROW LEVEL SECURITY', unguarded, CASE WHEN guarded THEN 'ENABLE' ELSE 'DISABLE' END);
    END LOOP;
    RETURN NULL;
END $$;

CREATE TRIGGER guard_tables AFTER INSERT OR DELETE OR TRUNCATE ON shardd.producers
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.guard_tables();

-- A campaign is known to all by its id: who could make one would learn which there are.
CREATE FUNCTION shardd.admit_campaign() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
    name text := shardd.bound_as();
BEGIN
    IF name IS NOT NULL THEN
        fine := shardd.refuse('id', format('%s is bound, and makes no campaigns', name),
            'Let an operator make it, and bind it: shardd campaign add, shardd producer add.', 'campaigns', 'insufficient_privilege');
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER admit_campaign BEFORE INSERT ON shardd.campaigns FOR EACH ROW EXECUTE FUNCTION shardd.admit_campaign();
