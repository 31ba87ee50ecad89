-- Rights by device: an operator binds a role to devices, device groups and campaigns. This comment defines what that means for the role;
-- `shardd guide producers` explains it to users.
--
-- Inserting. A job of a bound role names a device or a device group that is bound to it, and no campaign but those that are bound to
-- it. A role that has been bound to campaigns only may use every device, and each of its jobs names one of these campaigns. A role with
-- several sets of bindings (see below) may insert a job if one set allows it. A refusal does not reveal whether something that is not
-- bound exists. Bound roles cannot create campaigns. Everybody may add opt-outs.
--
-- Seeing. A bound role sees every job, event and reply whose device, device group or campaign is bound to it, whoever inserted it; its
-- campaigns; and the opt-outs that it added itself, not what was added for other addresses of the person: that would reveal the number
-- behind a LID. A group means the jobs that name it, not its devices.
--
-- Keys. Dedupe keys and order groups of a bound role are its own; unbound roles share theirs.
--
-- Who is bound. The login counts (session_user): neither SET ROLE nor a function with another owner's rights removes a binding.
-- A login is bound by its own bindings, and by those of every role without LOGIN that it is a member of, each set by itself. A role
-- with LOGIN binds only itself: before PostgreSQL 16 it can make any role a member of itself. SET ROLE narrows:
-- to the sets of the role that was set, as far as these are among those of the login; a login that is not bound takes over
-- the sets of the role that it sets, which suits a connection pool that works for several. Superusers and the members of the role
-- that owns this schema are never bound by their login. A role that has lost all its bindings stays bound, to nothing, until an
-- operator removes it as a whole.

CREATE TABLE shardd.producers (
    role       text COLLATE "C" PRIMARY KEY,  -- a name, not an oid: it must survive a dump
    is_group   boolean NOT NULL,           -- it cannot log in: its bindings are those of its members
    any_device boolean NOT NULL,           -- it was never bound to a device or a device group
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shardd.producer_devices (
    role      text COLLATE "C" NOT NULL REFERENCES shardd.producers (role) ON DELETE CASCADE,
    device_id text NOT NULL REFERENCES shardd.devices (id),
    PRIMARY KEY (role, device_id)
);

CREATE TABLE shardd.producer_groups (
    role         text COLLATE "C" NOT NULL REFERENCES shardd.producers (role) ON DELETE CASCADE,
    device_group text NOT NULL REFERENCES shardd.device_groups (id) ON DELETE CASCADE,
    PRIMARY KEY (role, device_group)
);

CREATE TABLE shardd.producer_campaigns (
    role     text COLLATE "C" NOT NULL REFERENCES shardd.producers (role) ON DELETE CASCADE,
    campaign text NOT NULL REFERENCES shardd.campaigns (id),
    PRIMARY KEY (role, campaign)
);

CREATE INDEX producers_groups ON shardd.producers (role) WHERE is_group;
CREATE INDEX producer_groups_group ON shardd.producer_groups (device_group);

-- The bound roles whose bindings count for `login`; empty: none. (It and session_binding inherit the search_path of the functions
-- that call them: setting it is most of what they cost.)
CREATE FUNCTION shardd.bound_roles(login text) RETURNS text[] LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
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

-- The role as which this session is bound, which owns its keys, and the bound roles whose bindings apply to it. `name` is NULL in a
-- session that is not bound.
CREATE FUNCTION shardd.session_binding(OUT name text, OUT roles text[]) LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
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

-- The role as which this session is bound; NULL: it is not.
CREATE FUNCTION shardd.bound_as() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (shardd.session_binding()).name;
END $$;

-- What is bound to this session, as the keys of an object: device:ID, group:ID, campaign:ID. NULL: it is not bound.
CREATE FUNCTION shardd.bindings() RETURNS jsonb LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    theirs text[];
BEGIN
    SELECT b.roles INTO theirs FROM shardd.session_binding() b WHERE b.name IS NOT NULL;
    IF theirs IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN coalesce((
        SELECT jsonb_object_agg(one.name, true)
          FROM (SELECT 'device:' || b.device_id AS name FROM shardd.producer_devices b WHERE b.role = ANY (theirs)
                UNION ALL SELECT 'group:' || b.device_group FROM shardd.producer_groups b WHERE b.role = ANY (theirs)
                UNION ALL SELECT 'campaign:' || b.campaign FROM shardd.producer_campaigns b WHERE b.role = ANY (theirs)) one), '{}');
END $$;

-- Admission for bound roles: whether the session may insert this job, and who owns its keys. It runs before admit_job, so that a refusal
-- reveals nothing but bindings. guard_producers creates the trigger, with a condition on the session.
CREATE FUNCTION shardd.admit_producer() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    who   text := session_user;
    theirs text[] := array[who];
    one   text;
    sends boolean;
    joins boolean;
    may_send boolean := false;
    fine  boolean;
BEGIN
    IF (NEW.device_id IS NULL) = (NEW.device_group IS NULL) THEN
        RETURN NEW;  -- admit_job refuses it
    END IF;
    -- A login that is bound by its own bindings only needs no further check.
    IF TG_ARGV[0] = 'groups' OR current_setting('role') NOT IN ('none', who) OR pg_has_role(who, current_user, 'MEMBER') THEN
        SELECT b.name, b.roles INTO who, theirs FROM shardd.session_binding() b;
        IF who IS NULL THEN
            RETURN NEW;
        END IF;
    END IF;
    -- One look-up by key after the other: in a join with the roles, the planner would hash all bindings.
    FOREACH one IN ARRAY theirs LOOP
        SELECT p.any_device OR EXISTS (SELECT FROM shardd.producer_devices b WHERE b.role = one AND b.device_id = NEW.device_id)
                   OR EXISTS (SELECT FROM shardd.producer_groups b WHERE b.role = one AND b.device_group = NEW.device_group),
               CASE WHEN NEW.campaign IS NULL THEN NOT p.any_device
                    ELSE EXISTS (SELECT FROM shardd.producer_campaigns b WHERE b.role = one AND b.campaign = NEW.campaign) END
          INTO sends, joins FROM shardd.producers p WHERE p.role = one;
        IF sends AND joins THEN
            NEW.producer := who;
            RETURN NEW;
        END IF;
        may_send := may_send OR sends;
    END LOOP;
    IF may_send AND NEW.campaign IS NULL THEN
        fine := shardd.refuse('campaign', format('campaign is empty, but %s is bound to campaigns', who),
            'To see your bindings: SELECT shardd.bindings().', code => 'insufficient_privilege');
    ELSIF may_send THEN
        fine := shardd.refuse('campaign', format('campaign %L is not bound to %s', left(NEW.campaign, 80), who),
            'To see your bindings: SELECT shardd.bindings(). An operator adds more with: shardd producer add.',
            code => 'insufficient_privilege');
    END IF;
    fine := shardd.refuse(CASE WHEN NEW.device_id IS NULL THEN 'device_group' ELSE 'device_id' END,
        CASE WHEN NEW.device_id IS NULL THEN format('device_group %L is not bound to %s', left(NEW.device_group, 80), who)
             ELSE format('device_id %L is not bound to %s', left(NEW.device_id, 80), who) END,
        'To see your bindings: SELECT shardd.bindings(). An operator adds more with: shardd producer add.',
        code => 'insufficient_privilege');
    RETURN NULL;
END $$;

-- What a bound session sees of jobs and events. A filter alone would answer questions about the rows that it takes away: the comparisons
-- of text and numbers are leakproof, so PostgreSQL uses them on an index before the filter of a view or of row security, and EXPLAIN
-- says how many rows each of the two left over, or, without running anything, what the statistics make of a comparison. OFFSET 0 keeps
-- every condition of the caller outside, and behind a barrier the planner uses no statistics of the columns. What these views cost
-- depends on nothing that the caller asks.
CREATE VIEW shardd.bound_outcomes WITH (security_barrier) AS
    SELECT * FROM shardd.all_outcomes
     WHERE coalesce((SELECT shardd.bindings())
                    ?| array['device:' || device_id, 'group:' || device_group, 'campaign:' || campaign], true)
     ORDER BY id DESC OFFSET 0;
CREATE VIEW shardd.bound_events WITH (security_barrier) AS
    SELECT id, at, kind, job_id, device_id, campaign, reference, data, xid, event_id FROM shardd.all_events
     WHERE coalesce((SELECT shardd.bindings())
                    ?| array['device:' || device_id, 'group:' || device_group, 'campaign:' || campaign], true)
    OFFSET 0;

-- The campaigns and opt-outs that a session may see, in the same way. A bound role cannot read the tables themselves.
CREATE VIEW shardd.visible_campaigns WITH (security_barrier) AS
    SELECT * FROM shardd.campaigns WHERE coalesce((SELECT shardd.bindings()) ? ('campaign:' || id), true) OFFSET 0;
CREATE VIEW shardd.visible_opt_outs WITH (security_barrier) AS
    SELECT address, recipient, source, said_at, created_at FROM shardd.opt_outs
     WHERE coalesce(CASE WHEN same_as IS NULL THEN created_by ELSE '' END = (SELECT shardd.bound_as()), true) OFFSET 0;

-- Whether a statement of this session may be planned to read everything. IMMUTABLE is not true of it, on purpose: the planner then calls
-- it itself and leaves out the half of a view that is not for this session, with its estimates. Whether the answer still holds when the
-- plan is executed, confirm_plan asks.
CREATE FUNCTION shardd.sees_all() RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN shardd.bound_as() IS NULL;
END $$;

-- Refuses a bound session: its plan is older than the membership that binds it. (Plans that are older than SET ROLE, or than a change of
-- bound roles, PostgreSQL makes anew itself.)
CREATE FUNCTION shardd.confirm_plan() RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := shardd.bound_as();
BEGIN
    IF name IS NOT NULL THEN
        RETURN shardd.refuse('id', format('this statement was planned before the session was bound as %s', name),
            'Run DISCARD PLANS, or connect again.', 'outcomes', 'insufficient_privilege');
    END IF;
    RETURN true;
END $$;

-- Refuses a bound session that reads a table, when the statement is planned: even its plan would reveal what the table contains.
-- IMMUTABLE for the same reason as sees_all.
CREATE FUNCTION shardd.refuse_bound_reader(at_table text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := shardd.bound_as();
BEGIN
    IF name IS NOT NULL THEN
        RETURN shardd.refuse(CASE at_table WHEN 'campaigns' THEN 'id' ELSE 'address' END,
            format('%s is bound, and cannot read shardd.%s', name, at_table),
            format('Read shardd.visible_%s instead. To insert, omit RETURNING and the columns of ON CONFLICT.', at_table),
            at_table, 'insufficient_privilege');
    END IF;
    RETURN true;
END $$;

-- A job by its id, if the session may see it. A bound session cannot use an index through shardd.outcomes.
CREATE FUNCTION shardd.outcome(id bigint) RETURNS SETOF shardd.all_outcomes ROWS 1 LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound jsonb := shardd.bindings();
BEGIN
    RETURN QUERY
        SELECT o.* FROM shardd.all_outcomes o
         WHERE o.id = outcome.id
           AND coalesce(bound ?| array['device:' || o.device_id, 'group:' || o.device_group, 'campaign:' || o.campaign], true);
END $$;

-- The jobs that have a reference, the newest first; for a bound session those that it inserted as the role as which it is bound, and still
-- may see. The two are looked up together, so that not even the work shows whether somebody else has the reference.
CREATE FUNCTION shardd.outcomes_by_reference(reference text) RETURNS SETOF shardd.all_outcomes LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound jsonb := shardd.bindings();
    name  text := shardd.bound_as();
BEGIN
    IF name IS NULL THEN
        RETURN QUERY SELECT o.* FROM shardd.all_outcomes o WHERE o.reference = outcomes_by_reference.reference ORDER BY o.id DESC;
        RETURN;
    END IF;
    RETURN QUERY
        SELECT o.* FROM shardd.all_outcomes o
         WHERE o.id = ANY (array(
                   SELECT j.id FROM shardd.jobs j WHERE j.reference = outcomes_by_reference.reference AND j.producer = name
                   UNION ALL
                   SELECT a.id FROM shardd.archive a WHERE a.reference = outcomes_by_reference.reference AND a.producer = name))
           AND bound ?| array['device:' || o.device_id, 'group:' || o.device_group, 'campaign:' || o.campaign]
         ORDER BY o.id DESC;
END $$;

-- The newest jobs that the session may see, newest first: their ids are found before anything else is computed of a row. Through
-- shardd.outcomes, all jobs would be read and sorted, because the planner passes no wish for an order into the halves of a view. A bound
-- session with few jobs has all others' read until there are `most`, unless it asks for the ids from `first` to `last` only.
CREATE FUNCTION shardd.newest_outcomes(most integer, first bigint DEFAULT 0, last bigint DEFAULT 9223372036854775807) RETURNS SETOF shardd.all_outcomes LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    bound jsonb := shardd.bindings();
BEGIN
    RETURN QUERY
        SELECT o.* FROM shardd.all_outcomes o
         WHERE o.id = ANY (array(
                   (SELECT j.id FROM shardd.jobs j
                     WHERE j.id BETWEEN first AND last
                       AND coalesce(bound ?| array['device:' || j.device_id, 'group:' || j.device_group, 'campaign:' || j.campaign], true)
                     ORDER BY j.id DESC LIMIT most)
                   UNION ALL
                   (SELECT a.id FROM shardd.archive a
                     WHERE a.id BETWEEN first AND last
                       AND coalesce(bound ?| array['device:' || a.device_id, 'group:' || a.device_group, 'campaign:' || a.campaign], true)
                     ORDER BY a.id DESC LIMIT most)
                   ORDER BY id DESC LIMIT most))
         ORDER BY o.id DESC;
END $$;

-- The job that has a dedupe key: the INSERT that repeats a key returns no row, and its author still needs the id. A bound session has keys
-- of its own, and is shown a job that it may still see. No row: the key is free, or retention deleted its job.
CREATE FUNCTION shardd.outcome_by_dedupe_key(dedupe_key text) RETURNS SETOF shardd.all_outcomes ROWS 1 LANGUAGE plpgsql STABLE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound jsonb := shardd.bindings();
    name  text := coalesce(shardd.bound_as(), '');
BEGIN
    RETURN QUERY
        SELECT o.* FROM shardd.all_outcomes o
         WHERE o.id = (SELECT k.job_id FROM shardd.dedupe_keys k WHERE k.key = outcome_by_dedupe_key.dedupe_key AND k.producer = name)
           AND coalesce(bound ?| array['device:' || o.device_id, 'group:' || o.device_group, 'campaign:' || o.campaign], true);
END $$;

-- Whether this session reads the whole inbox, and events of it: it is not bound, and a member of shardd_inbox.
CREATE FUNCTION shardd.reads_inbox() RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    who text := CASE WHEN current_setting('role') = 'none' THEN session_user ELSE current_setting('role') END;
BEGIN
    RETURN shardd.bound_as() IS NULL
       AND (coalesce(pg_has_role(who, to_regrole('shardd_inbox'), 'MEMBER'), false)
            OR pg_has_role(who, (SELECT c.relowner FROM pg_class c WHERE c.oid = 'shardd.outbox'::regclass), 'MEMBER'));
END $$;

-- Events for sessions that are not bound.
CREATE VIEW shardd.unbound_events AS
    SELECT id, at, kind, job_id, device_id, campaign, reference, data, xid, event_id FROM shardd.all_events
     WHERE kind NOT IN ('message.received', 'message.media') OR (SELECT shardd.reads_inbox());

-- What producers read while no role is bound; guard_producers adds the filters.
CREATE VIEW shardd.outcomes AS SELECT * FROM shardd.all_outcomes;
CREATE VIEW shardd.events AS SELECT * FROM shardd.unbound_events;

-- Policies for the tables that producers use without a view. RETURNING needs SELECT, so that an INSERT is shown its own row.
CREATE POLICY seen ON shardd.jobs FOR SELECT USING (true);
CREATE POLICY added ON shardd.jobs FOR INSERT WITH CHECK (true);
CREATE POLICY seen ON shardd.campaigns FOR SELECT USING (true);
CREATE POLICY added ON shardd.campaigns FOR INSERT WITH CHECK (true);
CREATE POLICY seen ON shardd.opt_outs FOR SELECT USING (true);
CREATE POLICY added ON shardd.opt_outs FOR INSERT WITH CHECK (true);

-- Installs the restrictions of bound roles, and removes them when there are none: filters in the views, row security (which keeps all
-- producers from COPY), and the admission trigger. Each first checks by role names whether the session may be concerned at all: that
-- costs other sessions nothing measurable, where reading a table would cost a tenth of an INSERT. (So anybody who can connect can read
-- in the catalogue which roles are bound, but not to what.)
--
-- The row security of shardd.jobs is a filter like any other, because RETURNING id needs one that some rows pass: with EXPLAIN a bound
-- role finds out whether the job of an id is still in the queue. It can name no other column.
CREATE FUNCTION shardd.guard_producers() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    concerned text;
    one       text;
BEGIN
    LOCK TABLE shardd.producers IN SHARE ROW EXCLUSIVE MODE;  -- of two at once, the second must see what the first did
    SELECT format('(session_user::text = ANY (%1$L) OR current_setting(''role'') <> ''none'' AND current_setting(''role'') = ANY (%1$L)',
                  array_agg(p.role ORDER BY p.role))
           || coalesce(string_agg(format(' OR pg_has_role(session_user, to_regrole(%L), ''MEMBER'')', quote_ident(p.role)), ''
                                  ORDER BY p.role) FILTER (WHERE p.is_group), '') || ')'
      INTO concerned FROM shardd.producers p HAVING count(*) > 0;
    IF concerned IS NOT DISTINCT FROM (SELECT s.value #>> '{}' FROM shardd.settings s WHERE s.name = 'producers.concerned') THEN
        RETURN NULL;
    END IF;
    DELETE FROM shardd.settings WHERE name = 'producers.concerned';

    IF concerned IS NULL THEN
        CREATE OR REPLACE VIEW shardd.outcomes AS SELECT * FROM shardd.all_outcomes;
        CREATE OR REPLACE VIEW shardd.events AS
            SELECT * FROM shardd.unbound_events;
        FOREACH one IN ARRAY array['jobs', 'campaigns', 'opt_outs', 'outbox'] LOOP
            EXECUTE format('ALTER TABLE shardd.%I DISABLE ROW LEVEL SECURITY', one);
        END LOOP;
        DROP TRIGGER accept_producer ON shardd.jobs;
        RETURN NULL;
    END IF;

    INSERT INTO shardd.settings (name, value) VALUES ('producers.concerned', to_jsonb(concerned));
    -- One half of a view is for sessions that see everything, and left out of a bound one's plan. The planner passes no wish for an order
    -- into the halves, and the newest jobs are what people ask for.
    EXECUTE format('CREATE OR REPLACE VIEW shardd.outcomes AS '
                   '(SELECT * FROM shardd.all_outcomes '
                   'WHERE shardd.sees_all() AND (SELECT %s IS NOT TRUE OR shardd.confirm_plan()) ORDER BY id DESC) '
                   'UNION ALL (SELECT * FROM shardd.bound_outcomes WHERE NOT shardd.sees_all() ORDER BY id DESC)', concerned);
    EXECUTE format('CREATE OR REPLACE VIEW shardd.events AS '
                   'SELECT * FROM shardd.unbound_events '
                   'WHERE shardd.sees_all() AND (SELECT %s IS NOT TRUE OR shardd.confirm_plan()) '
                   'UNION ALL SELECT * FROM shardd.bound_events WHERE NOT shardd.sees_all()', concerned);
    EXECUTE format('ALTER POLICY seen ON shardd.jobs USING (%s IS NOT TRUE OR coalesce((SELECT shardd.bindings()) '
                   '?| array[''device:'' || device_id, ''group:'' || device_group, ''campaign:'' || campaign], true))', concerned);
    FOREACH one IN ARRAY array['campaigns', 'opt_outs'] LOOP
        EXECUTE format('ALTER POLICY seen ON shardd.%I USING (shardd.refuse_bound_reader(%L) '
                       'AND (SELECT %s IS NOT TRUE OR shardd.confirm_plan()))', one, one, concerned);
    END LOOP;
    -- Nobody but its owner reads the outbox. A plan with a table that has row security is made anew after SET ROLE.
    FOREACH one IN ARRAY array['jobs', 'campaigns', 'opt_outs', 'outbox'] LOOP
        EXECUTE format('ALTER TABLE shardd.%I ENABLE ROW LEVEL SECURITY', one);
    END LOOP;
    -- Triggers work in the order of their names: this one before admit_job.
    EXECUTE format('CREATE OR REPLACE TRIGGER accept_producer BEFORE INSERT ON shardd.jobs FOR EACH ROW WHEN (%s) '
                   'EXECUTE FUNCTION shardd.admit_producer(%L)',
                   concerned, CASE WHEN EXISTS (SELECT FROM shardd.producers p WHERE p.is_group) THEN 'groups' ELSE '' END);
    RETURN NULL;
END $$;

CREATE TRIGGER guard_producers AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON shardd.producers
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.guard_producers();

-- Campaign ids are global: whoever could create one would learn which exist.
CREATE FUNCTION shardd.admit_campaign() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
    name text := shardd.bound_as();
BEGIN
    IF name IS NOT NULL THEN
        fine := shardd.refuse('id', format('%s is bound, and cannot create campaigns', name),
            'Ask an operator to create and bind it: shardd campaign add, shardd producer add.', 'campaigns', 'insufficient_privilege');
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER admit_campaign BEFORE INSERT ON shardd.campaigns FOR EACH ROW EXECUTE FUNCTION shardd.admit_campaign();

-- What psql shows (\d+, \df+) to who wonders why RETURNING * is refused: no hint can be added to PostgreSQL's own error.
COMMENT ON TABLE shardd.jobs IS
    'Insert jobs here. Producers may read only the column id: RETURNING id works, RETURNING * is "permission denied for table jobs". '
    'State, error and receipts of every job: shardd.outcomes. A repeated dedupe_key inserts nothing and returns no row: '
    'shardd.outcome_by_dedupe_key(key) finds the first job. All columns: shardd guide insert';
COMMENT ON COLUMN shardd.jobs.dedupe_key IS
    'A second INSERT with the same key does nothing, without an error. The first job: SELECT id FROM shardd.outcome_by_dedupe_key(key)';
COMMENT ON VIEW shardd.outcomes IS
    'Every job that this role may see, waiting or ended; bodies, media and dedupe keys are not shown. By id: shardd.outcome(id); by '
    'reference: shardd.outcomes_by_reference(text); by dedupe key: shardd.outcome_by_dedupe_key(text)';
COMMENT ON FUNCTION shardd.outcome(bigint) IS 'The job with this id, as in shardd.outcomes';
COMMENT ON FUNCTION shardd.outcomes_by_reference(text) IS 'The jobs with this reference, as in shardd.outcomes, the newest first';
COMMENT ON FUNCTION shardd.outcome_by_dedupe_key(text) IS
    'The job that was inserted first with this dedupe key, as in shardd.outcomes; no row once retention deleted it';
