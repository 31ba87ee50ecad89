-- Incoming messages: storing them, and for operators through `shardd inbox`.

-- name: store_incoming
-- Stores messages; one that is known already causes nothing. The arrays have an element for each message; `rows` are JSON objects with
-- the columns of shardd.messages. Returns the number of new ones.
WITH stored AS (
    INSERT INTO shardd.messages (device_id, message_id, sender, number, lid, name, chat, own, status, history, kind, text, choice, quoted_id,
                              job_id, details, media_type, media_size, media_name, media_node, media_error, opt_out, written_at)
    SELECT m.device_id, m.message_id, m.sender, m.number, m.lid, m.name, m.chat, m.own, m.status, m.history, m.kind, m.text, m.choice, m.quoted_id,
           m.job_id, m.details, m.media_type, m.media_size, m.media_name, m.media_node, m.media_error, m.opt_out,
           to_timestamp(m.written_at)
      FROM unnest(%(rows)s::jsonb[]) AS given(message)
     CROSS JOIN jsonb_to_record(given.message)
           AS m(device_id text, message_id text, sender text, number text, lid text, name text, chat text, own boolean, status boolean,
                history boolean, kind text, text text, choice text, quoted_id text, job_id bigint, details jsonb, media_type text, media_size bigint,
                media_name text, media_node text, media_error text, opt_out boolean, written_at double precision)
    ON CONFLICT (device_id, message_id, sender) DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM stored;

-- name: jobs_of_messages
-- The jobs that these messages of devices were: arrays, one element per message.
SELECT e.device_id, e.message_id, max(a.id) AS job_id
  FROM unnest(%(device_ids)s::text[], %(message_ids)s::text[]) AS e(device_id, message_id)
  JOIN shardd.archive a ON a.message_id = e.message_id AND a.device_id = e.device_id
 GROUP BY e.device_id, e.message_id;

-- name: list_messages
-- Incoming messages, newest first, below the id `before`; NULL filters pass everything. `address`: of a person, whose number has the same last digits in every
-- form: all others need not be read.
SELECT id, device_id, message_id, sender, number, lid, name, chat, own, status, history, kind, text, choice, quoted_id, job_id, details, media_type,
       media_size, media_name, media_node, media_path, media_error, opt_out, written_at, received_at
  FROM shardd.messages
 WHERE (%(device_id)s::text IS NULL OR device_id = %(device_id)s) AND (%(job_id)s::bigint IS NULL OR job_id = %(job_id)s)
   AND (%(before)s::bigint IS NULL OR id < %(before)s)
   AND (%(address)s::text IS NULL OR %(address)s IN (sender, lid)
        OR right(coalesce(number, sender), 4) = right(%(address)s, 4) AND shardd.heard_address(coalesce(number, sender)) = %(address)s)
 ORDER BY id DESC LIMIT %(most)s;

-- name: show_message
-- One incoming message.
SELECT id, device_id, message_id, sender, number, lid, name, chat, own, status, history, kind, text, choice, quoted_id, job_id, details, media_type,
       media_size, media_name, media_node, media_path, media_error, opt_out, written_at, received_at
  FROM shardd.messages WHERE id = %(id)s;

-- name: is_media_awaited
-- Whether a message still awaits its file from this node.
SELECT EXISTS (SELECT FROM shardd.messages
                WHERE device_id = %(device_id)s AND message_id = %(message_id)s AND sender = %(sender)s AND media_node = %(node)s
                  AND media_path IS NULL);

-- name: set_media
-- The file of a message is at `path`, or could not be downloaded for `error`. Returns the message's id; no row: it is deleted, or has its
-- file.
UPDATE shardd.messages SET media_path = %(path)s, media_error = %(error)s
 WHERE device_id = %(device_id)s AND message_id = %(message_id)s AND sender = %(sender)s AND media_node = %(node)s AND media_path IS NULL
RETURNING id;

-- name: lose_media
-- What awaits its file from this node for longer than `after` seconds and is not among `message_ids`: its key is lost. Returns how many
-- messages.
WITH lost AS (
    UPDATE shardd.messages SET media_error = %(error)s
     WHERE media_node = %(node)s AND media_path IS NULL AND media_error IS NULL
       AND received_at < now() - make_interval(secs => %(after)s) AND message_id <> ALL (%(message_ids)s::text[])
    RETURNING 1
)
SELECT count(*) FROM lost;

-- name: awaited_media
-- Those of these messages that still await their files from this node.
SELECT message_id FROM shardd.messages
 WHERE media_node = %(node)s AND media_path IS NULL AND message_id = ANY (%(message_ids)s::text[]);

-- name: known_media
-- Those of these paths that messages of this node have.
SELECT media_path FROM shardd.messages WHERE media_node = %(node)s AND media_path = ANY (%(paths)s::text[]);

-- name: deleted_media
-- Up to `most` files of this node whose messages are deleted.
SELECT path FROM shardd.deleted_media WHERE node = %(node)s LIMIT %(most)s;

-- name: forget_deleted_media
-- These files are gone.
DELETE FROM shardd.deleted_media WHERE node = %(node)s AND path = ANY (%(paths)s::text[]);
