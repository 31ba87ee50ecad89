-- What people did by the dashboard and by commands: who, when, what, and how it went. Only added to, and deleted when old (`forget_acts`).

CREATE TABLE shardd.acts (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    who     text NOT NULL,                 -- the name of a user, a token or an account; empty: nobody that is known
    how     text NOT NULL,                 -- how they came in: link, password, proxy, token, command
    address text NOT NULL,                 -- of the browser or program, as far as it is known; of a command, its host
    act     text NOT NULL,                 -- such as pause
    target  text NOT NULL DEFAULT '',      -- such as device d1
    detail  text NOT NULL DEFAULT '',
    result  text NOT NULL DEFAULT 'done',  -- or why not
    node    text NOT NULL                  -- its name
);

CREATE INDEX acts_of ON shardd.acts (who, id);

-- Acts that have begun and not ended. Whoever carries one out says so again and again, so that it shows when that process has died.
CREATE TABLE shardd.acts_under_way (
    act     bigint PRIMARY KEY REFERENCES shardd.acts ON DELETE CASCADE,
    seen_at timestamptz NOT NULL DEFAULT now()
);
