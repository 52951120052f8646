-- Digi's tables on SQL Server, version 1. `{schema}` stands for the schema's name in brackets. Times are UTC.
-- Every statement ends with a semicolon at the end of a line, and does nothing where its table is.

IF OBJECT_ID(N'{schema}.digi_room', N'U') IS NULL
CREATE TABLE {schema}.digi_room (
    id         BIGINT        NOT NULL,       -- 1 to 2^31 - 1
    name       NVARCHAR(MAX) NOT NULL,
    kind       NVARCHAR(MAX) NOT NULL,
    created_at DATETIME2(3)  NOT NULL,
    CONSTRAINT digi_room_key PRIMARY KEY CLUSTERED (id)
);

-- The numbering of each room.
IF OBJECT_ID(N'{schema}.digi_head', N'U') IS NULL
CREATE TABLE {schema}.digi_head (
    room_id  BIGINT       NOT NULL,
    epoch    BIGINT       NOT NULL,
    last_seq BIGINT       NOT NULL,
    floor    BIGINT       NOT NULL,          -- numbers up to here can no longer be read
    last_at  DATETIME2(3) NOT NULL,          -- time of the last change; times of a room never go back
    CONSTRAINT digi_head_key PRIMARY KEY CLUSTERED (room_id)
);

-- Keys are compared byte by byte. Trailing blanks, which don't count in SQL Server's comparisons whatever the collation,
-- count by the length.
IF OBJECT_ID(N'{schema}.digi_member', N'U') IS NULL
CREATE TABLE {schema}.digi_member (
    room_id    BIGINT        NOT NULL,
    user_key   NVARCHAR(191) COLLATE Latin1_General_100_BIN2 NOT NULL,
    key_length AS CAST(DATALENGTH(user_key) AS INT) PERSISTED NOT NULL,
    user_name  NVARCHAR(MAX) NOT NULL,
    role       BIGINT        NOT NULL,       -- 0 member, 1 moderator
    read_seq   BIGINT        NOT NULL CONSTRAINT digi_member_read_seq DEFAULT 0,
    joined_at  DATETIME2(3)  NOT NULL,
    CONSTRAINT digi_member_key PRIMARY KEY CLUSTERED (room_id, user_key, key_length)
);

-- The messages, and at the same time the log of their adding: clustered by room and place.
IF OBJECT_ID(N'{schema}.digi_message', N'U') IS NULL
CREATE TABLE {schema}.digi_message (
    id          BIGINT        NOT NULL,      -- room_id * 2^32 + pos
    room_id     BIGINT        NOT NULL,
    pos         BIGINT        NOT NULL,      -- number of the change that added it
    sender_key  NVARCHAR(191) COLLATE Latin1_General_100_BIN2 NOT NULL,
    sender_name NVARCHAR(MAX) NOT NULL,
    client_id   NVARCHAR(64)  COLLATE Latin1_General_100_BIN2 NULL,
    created_at  DATETIME2(3)  NOT NULL,
    edited_at   DATETIME2(3)  NULL,
    deleted_at  DATETIME2(3)  NULL,
    body        NVARCHAR(MAX) NULL,          -- NULL when deleted
    CONSTRAINT digi_message_key PRIMARY KEY CLUSTERED (id)
);

-- All other changes.
IF OBJECT_ID(N'{schema}.digi_change', N'U') IS NULL
CREATE TABLE {schema}.digi_change (
    room_id    BIGINT        NOT NULL,
    seq        BIGINT        NOT NULL,
    kind       BIGINT        NOT NULL,       -- 1 edited, 2 deleted, 3 member joined, 4 member left
    message_id BIGINT        NULL,
    user_key   NVARCHAR(191) COLLATE Latin1_General_100_BIN2 NULL,
    at         DATETIME2(3)  NOT NULL,
    CONSTRAINT digi_change_key PRIMARY KEY CLUSTERED (room_id, seq)
);

-- The batches that were committed, so that a repeat after a lost answer finds what became of them.
IF OBJECT_ID(N'{schema}.digi_batch', N'U') IS NULL
CREATE TABLE {schema}.digi_batch (
    node     BIGINT        NOT NULL,
    number   BIGINT        NOT NULL,
    at       DATETIME2(3)  NOT NULL,         -- time of the batch; old rows are removed
    outcomes NVARCHAR(MAX) NULL,             -- NULL: made void
    CONSTRAINT digi_batch_key PRIMARY KEY CLUSTERED (node, number)
);
