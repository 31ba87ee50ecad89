CREATE TABLE user_devices (
    id char(36) NOT NULL,
    user_id char(36) NOT NULL,
    device_name varchar(255) NOT NULL COMMENT 'shown; it''s, of (people)',
    phone varchar(50) DEFAULT NULL,
    jid varchar(255) DEFAULT NULL,
    status enum('online','offline') DEFAULT 'offline',
    last_seen timestamp NULL DEFAULT NULL,
    min_delay_seconds int(11) DEFAULT 5,
    max_delay_seconds int(11) DEFAULT 15,
    platform varchar(255) DEFAULT NULL,
    PRIMARY KEY (id),
    KEY idx_user (user_id, device_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE broadcast_messages (
    id char(36) NOT NULL,
    user_id char(36) DEFAULT NULL,
    device_id char(36) DEFAULT NULL,
    campaign_id int(11) DEFAULT NULL,
    sequence_id char(36) DEFAULT NULL,
    sequence_stepid char(36) DEFAULT NULL,
    recipient_phone varchar(50) DEFAULT NULL,
    recipient_name varchar(255) DEFAULT NULL,
    message_type varchar(50) DEFAULT 'text',
    content mediumtext DEFAULT NULL,
    media_url text DEFAULT NULL,
    status varchar(50) DEFAULT 'pending',
    error_message text DEFAULT NULL,
    scheduled_at datetime DEFAULT NULL,
    sent_at datetime DEFAULT NULL,
    created_at timestamp NULL DEFAULT NULL,
    updated_at timestamp NULL DEFAULT NULL,
    group_id varchar(255) DEFAULT NULL,
    group_order int(11) DEFAULT NULL,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE sayings (text text, raw blob, bits bit(4)) DEFAULT CHARSET=utf8mb4;
INSERT INTO sayings VALUES ('it''s; INSERT INTO broadcast_messages VALUES (1);', x'00ff27', b'101'), ('a\\', NULL, NULL);
CREATE TRIGGER remember BEFORE INSERT ON sayings FOR EACH ROW
INSERT INTO broadcast_messages (id, content, status) VALUES ('no', 'not; data''s', 'pending');
CREATE PROCEDURE remember_more()
INSERT INTO broadcast_messages (id, content, status) VALUES ('no', 'not; data''s', 'pending');
