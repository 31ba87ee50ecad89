-- Tokens of programs that ask by JSON.

-- name: add_api_token
-- Adds a token. Returns when it expires; no row: there is one of this name.
INSERT INTO shardd.api_tokens (name, sha256, may, role, created_by, expires_at)
VALUES (%(name)s, %(sha256)s, %(may)s, %(role)s, %(created_by)s, now() + make_interval(secs => %(lives)s::double precision))
ON CONFLICT (name) DO NOTHING
RETURNING expires_at;

-- name: list_api_tokens
-- All tokens.
SELECT name, may, role, created_by, created_at, expires_at, used_at, coalesce(expires_at <= now(), false) AS expired
  FROM shardd.api_tokens ORDER BY name;

-- name: remove_api_tokens
-- Removes tokens, which end with this. Returns the names of those that existed.
DELETE FROM shardd.api_tokens WHERE name = ANY (%(names)s::text[]) RETURNING name;

-- name: use_api_tokens
-- The tokens with these hashes. That one was used is written once a minute, and not while somebody else has the row locked.
WITH stale AS (
    SELECT name FROM shardd.api_tokens
     WHERE sha256 = ANY (%(sha256)s::bytea[]) AND coalesce(expires_at > now(), true) AND coalesce(used_at < now() - interval '1 minute', true)
       FOR NO KEY UPDATE SKIP LOCKED
), used AS (
    UPDATE shardd.api_tokens t SET used_at = now() FROM stale WHERE t.name = stale.name
)
SELECT sha256, name, may, role, created_by, created_at, expires_at, used_at, coalesce(expires_at <= now(), false) AS expired
  FROM shardd.api_tokens WHERE sha256 = ANY (%(sha256)s::bytea[]);

-- name: may_act_as
-- Whether this login may SET ROLE to a role, the statement that lets it, and the one that makes such a role.
SELECT r.oid IS NOT NULL AS is_there,
       coalesce(pg_has_role(r.oid, CASE WHEN server.is_16 THEN 'SET' ELSE 'MEMBER' END), false) AS may_act,
       format('GRANT %%I TO %%I', %(role)s::text, current_user) || CASE WHEN server.is_16 THEN ' WITH INHERIT FALSE;' ELSE ';' END
       AS grant_role,
       format('CREATE ROLE %%I NOLOGIN IN ROLE shardd_producer;', %(role)s::text) AS create_role
  FROM (SELECT current_setting('server_version_num')::integer >= 160000 AS is_16) server
  LEFT JOIN pg_roles r ON r.rolname = %(role)s;

-- name: act_as
-- For this transaction: the rights of a role, and the bindings that it has.
SELECT set_config('role', %(role)s, true);
