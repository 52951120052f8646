-- Digi's tables on SQLite, version 1. Times are milliseconds since 1970-01-01T00:00:00Z.

CREATE TABLE digi_room (
    id         INTEGER PRIMARY KEY,          -- 1 to 2^31 - 1
    name       TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    created_at INTEGER NOT NULL
);

-- The numbering of each room.
CREATE TABLE digi_head (
    room_id  INTEGER PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    floor    INTEGER NOT NULL,               -- numbers up to here can no longer be read
    last_at  INTEGER NOT NULL                -- time of the last change; times of a room never go back
);

CREATE TABLE digi_member (
    room_id   INTEGER NOT NULL,
    user_key  TEXT    NOT NULL,
    user_name TEXT    NOT NULL,
    role      INTEGER NOT NULL,              -- 0 member, 1 moderator
    read_seq  INTEGER NOT NULL DEFAULT 0,
    joined_at INTEGER NOT NULL,
    PRIMARY KEY (room_id, user_key)
) WITHOUT ROWID;

-- The messages, and at the same time the log of their adding: clustered by room and place.
-- The body stands last, so that reading the other columns does not touch the pages that a long one overflows to.
CREATE TABLE digi_message (
    id          INTEGER PRIMARY KEY,         -- room_id * 2^32 + pos
    room_id     INTEGER NOT NULL,
    pos         INTEGER NOT NULL,            -- number of the change that added it
    sender_key  TEXT    NOT NULL,
    sender_name TEXT    NOT NULL,
    client_id   TEXT,
    created_at  INTEGER NOT NULL,
    edited_at   INTEGER,
    deleted_at  INTEGER,
    body        TEXT                         -- NULL when deleted
);

-- All other changes.
CREATE TABLE digi_change (
    room_id    INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    kind       INTEGER NOT NULL,             -- 1 edited, 2 deleted, 3 member joined, 4 member left
    message_id INTEGER,
    user_key   TEXT,
    at         INTEGER NOT NULL,
    PRIMARY KEY (room_id, seq)
) WITHOUT ROWID;
