-- The old system's tables in PostgreSQL.
CREATE TABLE user_devices (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    device_name varchar(255) NOT NULL,
    phone varchar(50),
    jid varchar(255),
    status varchar(50) DEFAULT 'offline',
    last_seen timestamp,
    min_delay_seconds integer DEFAULT 5,
    max_delay_seconds integer DEFAULT 15,
    platform varchar(255)
);
CREATE TABLE broadcast_messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid,
    device_id uuid,
    campaign_id integer,
    sequence_id uuid,
    sequence_stepid uuid,
    recipient_phone varchar(50),
    recipient_name varchar(255),
    message_type varchar(50) DEFAULT 'text',
    content text,
    media_url text,
    status varchar(50) DEFAULT 'pending',
    error_message text,
    scheduled_at timestamp,
    sent_at timestamp,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    group_id varchar(255),
    group_order integer
);
-- What a dump has besides: its body must not be mistaken for data.
CREATE FUNCTION remember() RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
INSERT INTO broadcast_messages (content, status) VALUES ('not; data''s', 'pending');
END $body$;
CREATE TABLE sayings (text text);
INSERT INTO sayings VALUES ('it''s; INSERT INTO broadcast_messages VALUES (1);'), (E'\\.'), (E'two\nlines $$');
