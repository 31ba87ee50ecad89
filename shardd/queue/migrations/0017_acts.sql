-- What people did through the dashboard: who, when, what, and how it went. Only added to, and deleted when old (`forget_acts`).

CREATE TABLE shardd.acts (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    who     text NOT NULL,                 -- the name of a user or a token; empty: nobody that is known
    how     text NOT NULL,                 -- how they signed in: link, password, proxy, token
    address text NOT NULL,                 -- of the browser or program, as far as it is known
    act     text NOT NULL,                 -- such as pause
    target  text NOT NULL DEFAULT '',      -- such as device d1
    detail  text NOT NULL DEFAULT '',
    result  text NOT NULL DEFAULT 'done',  -- or why not
    node    text NOT NULL                  -- its name
);

CREATE INDEX acts_of ON shardd.acts (who, id);
