-- Bindings of producers, for operators through `shardd producer`. 0009_producers.sql defines what a binding means.

-- name: describe_role
-- A role of the server: whether it can log in, whether it cannot be bound (superusers, members of the schema's owner, and roles that
-- bypass row security), whether it may insert at all, and which logins are members of it but not covered by its bindings. No row: there
-- is no such role.
WITH owner AS (
    SELECT relowner AS id FROM pg_class WHERE oid = 'shardd.producers'::regclass
)
SELECT r.rolcanlogin AS can_login, pg_has_role(r.oid, owner.id, 'MEMBER') OR r.rolbypassrls AS unbindable,
       coalesce(pg_has_role(r.oid, to_regrole('shardd_producer'), 'MEMBER'), false) AS may_insert,
       CASE WHEN r.rolcanlogin THEN array(
           SELECT m.rolname::text FROM pg_roles m
            WHERE m.rolcanlogin AND m.oid <> r.oid AND pg_has_role(m.oid, r.oid, 'MEMBER')
              AND NOT pg_has_role(m.oid, owner.id, 'MEMBER') AND shardd.bound_roles(m.rolname) = '{}'
            ORDER BY m.rolname) ELSE '{}' END AS free_members
  FROM pg_roles r CROSS JOIN owner WHERE r.rolname = %(role)s;

-- name: sql_for_role
-- The statements that create a login which may insert, and that let an existing role insert.
SELECT format('CREATE ROLE %%I LOGIN PASSWORD ''…'' CONNECTION LIMIT 20 IN ROLE shardd_producer;', %(role)s::text) AS create_role,
       format('GRANT shardd_producer TO %%I;', %(role)s::text) AS grant_insert;

-- name: set_short_lock_timeout
-- For this transaction: gives up waiting for a lock before sessions behind us are delayed noticeably, and before PostgreSQL looks for
-- deadlocks (deadlock_timeout, a second), in which it might end the other side.
SELECT set_config('lock_timeout', '300ms', true);

-- name: lock_producers
-- Lets one change the bindings at a time.
LOCK TABLE shardd.producers IN SHARE ROW EXCLUSIVE MODE;

-- name: unknown_names
-- Which of these devices, device groups and campaigns do not exist: kind and id.
SELECT 'device' AS kind, id FROM unnest(%(devices)s::text[]) id
 WHERE NOT EXISTS (SELECT FROM shardd.devices d WHERE d.id = id.id AND d.removed_at IS NULL)
UNION ALL
SELECT 'group', id FROM unnest(%(groups)s::text[]) id WHERE NOT EXISTS (SELECT FROM shardd.device_groups g WHERE g.id = id.id)
UNION ALL
SELECT 'campaign', id FROM unnest(%(campaigns)s::text[]) id WHERE NOT EXISTS (SELECT FROM shardd.campaigns c WHERE c.id = id.id);

-- name: bind_role
-- Makes a role a bound one.
INSERT INTO shardd.producers AS p (role, is_group, any_device)
VALUES (%(role)s, %(is_group)s, %(devices)s::text[] = '{}' AND %(groups)s::text[] = '{}')
ON CONFLICT (role) DO UPDATE SET is_group = EXCLUDED.is_group, any_device = p.any_device AND EXCLUDED.any_device;

-- name: add_bindings
-- Binds devices, device groups and campaigns to a role. Returns the numbers of new ones.
WITH d AS (
    INSERT INTO shardd.producer_devices (role, device_id) SELECT %(role)s, unnest(%(devices)s::text[])
    ON CONFLICT DO NOTHING RETURNING 1
), g AS (
    INSERT INTO shardd.producer_groups (role, device_group) SELECT %(role)s, unnest(%(groups)s::text[])
    ON CONFLICT DO NOTHING RETURNING 1
), c AS (
    INSERT INTO shardd.producer_campaigns (role, campaign) SELECT %(role)s, unnest(%(campaigns)s::text[])
    ON CONFLICT DO NOTHING RETURNING 1
)
SELECT (SELECT count(*) FROM d) AS devices, (SELECT count(*) FROM g) AS groups, (SELECT count(*) FROM c) AS campaigns;

-- name: remove_bindings
-- Removes bindings of a role. Returns the ones that existed: kind and id.
WITH d AS (
    DELETE FROM shardd.producer_devices WHERE role = %(role)s AND device_id = ANY (%(devices)s::text[]) RETURNING device_id
), g AS (
    DELETE FROM shardd.producer_groups WHERE role = %(role)s AND device_group = ANY (%(groups)s::text[]) RETURNING device_group
), c AS (
    DELETE FROM shardd.producer_campaigns WHERE role = %(role)s AND campaign = ANY (%(campaigns)s::text[]) RETURNING campaign
)
SELECT 'device' AS kind, device_id AS id FROM d UNION ALL SELECT 'group', device_group FROM g UNION ALL SELECT 'campaign', campaign FROM c;

-- name: free_role
-- Unbinds a role altogether. Returns it.
DELETE FROM shardd.producers WHERE role = %(role)s RETURNING role;

-- name: list_producers
-- Bound roles, with their bindings; NULL passes all of them. `of` is one role: its own bindings, and those of groups that it is a member
-- of, itself first. `held`: whether the bindings have any effect on the role; `is_stale`: it was given LOGIN, or lost it, since it was
-- bound.
SELECT p.role, p.created_at, r.oid IS NOT NULL AS is_there, p.is_group, r.rolcanlogin = p.is_group AS is_stale,
       r.oid IS NOT NULL AND NOT pg_has_role(r.oid, owner.id, 'MEMBER') AND NOT r.rolbypassrls AS held,
       coalesce(pg_has_role(r.oid, to_regrole('shardd_producer'), 'MEMBER'), false) AS may_insert, p.any_device,
       array(SELECT b.device_id FROM shardd.producer_devices b WHERE b.role = p.role ORDER BY 1) AS devices,
       array(SELECT b.device_group FROM shardd.producer_groups b WHERE b.role = p.role ORDER BY 1) AS groups,
       array(SELECT b.campaign FROM shardd.producer_campaigns b WHERE b.role = p.role ORDER BY 1) AS campaigns,
       CASE WHEN p.is_group THEN array(
           SELECT m.rolname::text FROM pg_roles m
            WHERE m.rolcanlogin AND pg_has_role(m.oid, r.oid, 'MEMBER') AND NOT pg_has_role(m.oid, owner.id, 'MEMBER')
            ORDER BY m.rolname) ELSE '{}' END AS members
  FROM shardd.producers p
 CROSS JOIN (SELECT relowner AS id FROM pg_class WHERE oid = 'shardd.producers'::regclass) owner
  LEFT JOIN pg_roles r ON r.rolname = p.role
 WHERE %(of)s::text IS NULL OR p.role = %(of)s
       OR p.is_group AND pg_has_role((SELECT oid FROM pg_roles WHERE rolname = %(of)s), r.oid, 'MEMBER')
 ORDER BY p.role IS DISTINCT FROM %(of)s, p.role;

-- name: idle_bindings
-- Bound roles whose bindings have no effect: the role does not exist (`missing`), was given LOGIN, or lost it, since it was bound
-- (`stale`), or cannot be bound (`unheld`).
SELECT p.role, CASE WHEN r.oid IS NULL THEN 'missing' WHEN r.rolcanlogin = p.is_group THEN 'stale' ELSE 'unheld' END AS why
  FROM shardd.producers p
 CROSS JOIN (SELECT relowner AS id FROM pg_class WHERE oid = 'shardd.producers'::regclass) owner
  LEFT JOIN pg_roles r ON r.rolname = p.role
 WHERE r.oid IS NULL OR r.rolcanlogin = p.is_group OR r.rolbypassrls OR pg_has_role(r.oid, owner.id, 'MEMBER')
 ORDER BY p.role;
