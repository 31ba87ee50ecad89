-- Tokens of programs that ask the dashboard by JSON. Only their hashes: 32 random bytes cannot be guessed, so a slow hash would add nothing.

CREATE TABLE shardd.api_tokens (
    name       text COLLATE "C" PRIMARY KEY,
    sha256     bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    may        text NOT NULL CHECK (may IN ('look', 'operate', 'send')),
    role       text COLLATE "C",            -- as which a sending token acts: a name, not an oid, like shardd.producers
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    used_at    timestamptz,                 -- to within a minute
    CHECK ((may = 'send') = (role IS NOT NULL))
);
