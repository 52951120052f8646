//! Every statement, as text. `{schema}` stands for the schema's name in brackets.
//!
//! Values are bound, never written into a text. Lists of rows come as one JSON parameter each, with numbers and times in
//! them and with the places of texts, which are bound one by one (`texts`). So there are few different statements, and
//! the server compiles each once. `OPENJSON` needs compatibility level 130 (SQL Server 2016).

/// What a new connection is told. An error ends its whole transaction, whatever its kind; a lock that isn't given
/// within two seconds is such an error. Tables with a computed column in a key want the second line.
pub(super) const SESSION: &str = "SET XACT_ABORT ON; SET NOCOUNT ON; SET LOCK_TIMEOUT 2000; \
     SET ANSI_NULLS, ANSI_PADDING, ANSI_WARNINGS, ARITHABORT, CONCAT_NULL_YIELDS_NULL, QUOTED_IDENTIFIER ON; \
     SET NUMERIC_ROUNDABORT OFF; SET IMPLICIT_TRANSACTIONS OFF; SET ROWCOUNT 0; SET TRANSACTION ISOLATION LEVEL READ COMMITTED;";
/// These three stand outside of `sp_executesql`, which has to leave with as many transactions as it came with.
pub(super) const BEGIN: &str = "BEGIN TRANSACTION";
pub(super) const COMMIT: &str = "COMMIT TRANSACTION";
pub(super) const ROLLBACK: &str = "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION";

macro_rules! message_columns {
    () => {
        "m.id, m.sender_key, m.sender_name, m.client_id, m.created_at, m.edited_at, m.deleted_at, m.body"
    };
}

/// Takes the locks of heads and writes them, in ascending order, where they are as they were when the batch was
/// planned; `@moved` says whether one was not. `@heads`: `r` room; `e`, `s`, `f` as it was; `ne`, `ns`, `nf`, `nt`
/// as it is to be.
macro_rules! move_heads {
    ($parameter:literal) => {
        concat!(
            "
DECLARE @moved INT = 0, @room BIGINT, @epoch BIGINT, @seq BIGINT, @floor BIGINT,
    @new_epoch BIGINT, @new_seq BIGINT, @new_floor BIGINT, @new_time DATETIME2(3);
DECLARE heads CURSOR LOCAL FAST_FORWARD FOR
    SELECT h.r, h.e, h.s, h.f, h.ne, h.ns, h.nf, h.nt
    FROM OPENJSON(",
            $parameter,
            ") WITH (r BIGINT '$.r', e BIGINT '$.e', s BIGINT '$.s', f BIGINT '$.f',
        ne BIGINT '$.ne', ns BIGINT '$.ns', nf BIGINT '$.nf', nt DATETIME2(3) '$.nt') AS h
    ORDER BY h.r;
OPEN heads;
FETCH NEXT FROM heads INTO @room, @epoch, @seq, @floor, @new_epoch, @new_seq, @new_floor, @new_time;
WHILE @@FETCH_STATUS = 0 AND @moved = 0
BEGIN
    UPDATE {schema}.digi_head
    SET epoch = @new_epoch, last_seq = last_seq + (@new_seq - @seq), floor = @new_floor, last_at = @new_time
    WHERE room_id = @room AND epoch = @epoch AND last_seq = @seq AND floor = @floor;
    IF @@ROWCOUNT <> 1 SET @moved = 1;
    FETCH NEXT FROM heads INTO @room, @epoch, @seq, @floor, @new_epoch, @new_seq, @new_floor, @new_time;
END;
CLOSE heads;
DEALLOCATE heads;
"
        )
    };
}

/// Writes new messages.
macro_rules! insert_messages {
    ($inserted:literal) => {
        concat!(
            "
    IF ", $inserted, " <> N'[]'
    INSERT INTO {schema}.digi_message
        (id, room_id, pos, sender_key, sender_name, client_id, created_at, edited_at, deleted_at, body)
    SELECT m.i, m.i / CAST(4294967296 AS BIGINT), m.i % CAST(4294967296 AS BIGINT), k.v, n.v, c.v, m.t, m.e, m.d, b.v
    FROM OPENJSON(", $inserted, ") WITH (i BIGINT '$.i', k INT '$.k', n INT '$.n', c INT '$.c',
        t DATETIME2(3) '$.t', e DATETIME2(3) '$.e', d DATETIME2(3) '$.d', b INT '$.b') AS m
    INNER JOIN @texts AS k ON k.n = m.k
    INNER JOIN @texts AS n ON n.n = m.n
    LEFT JOIN @texts AS c ON c.n = m.c
    LEFT JOIN @texts AS b ON b.n = m.b;
"
        )
    };
}

/// Writes the rows of a plan. An empty list costs nothing.
macro_rules! write_rows {
    ($inserted:literal, $updated:literal, $log:literal, $left:literal, $joined:literal) => {
        concat!(
            insert_messages!($inserted),
            "    IF ",
            $updated,
            " <> N'[]'
    UPDATE m SET body = b.v, edited_at = u.e, deleted_at = u.d
    FROM {schema}.digi_message AS m WITH (FORCESEEK)
    INNER JOIN OPENJSON(",
            $updated,
            ") WITH (i BIGINT '$.i', e DATETIME2(3) '$.e', d DATETIME2(3) '$.d',
        b INT '$.b') AS u ON u.i = m.id
    LEFT JOIN @texts AS b ON b.n = u.b;
    IF ",
            $log,
            " <> N'[]'
    INSERT INTO {schema}.digi_change (room_id, seq, kind, message_id, user_key, at)
    SELECT l.r, l.s, l.w, l.m, u.v, l.t
    FROM OPENJSON(",
            $log,
            ") WITH (r BIGINT '$.r', s BIGINT '$.s', w BIGINT '$.w', m BIGINT '$.m', u INT '$.u',
        t DATETIME2(3) '$.t') AS l
    LEFT JOIN @texts AS u ON u.n = l.u;
    IF ",
            $left,
            " <> N'[]'
    DELETE m
    FROM {schema}.digi_member AS m WITH (FORCESEEK)
    INNER JOIN OPENJSON(",
            $left,
            ") WITH (r BIGINT '$.r', u INT '$.u') AS l ON l.r = m.room_id
    INNER JOIN @texts AS u ON u.n = l.u
        AND CAST(u.v AS NVARCHAR(191)) = m.user_key AND DATALENGTH(u.v) = DATALENGTH(m.user_key);
    IF ",
            $joined,
            " <> N'[]'
    BEGIN
        UPDATE m SET user_name = n.v, role = j.o
        FROM {schema}.digi_member AS m WITH (FORCESEEK)
        INNER JOIN OPENJSON(",
            $joined,
            ") WITH (r BIGINT '$.r', u INT '$.u', n INT '$.n', o BIGINT '$.o',
            fresh INT '$.fresh') AS j ON j.r = m.room_id
        INNER JOIN @texts AS u ON u.n = j.u
            AND CAST(u.v AS NVARCHAR(191)) = m.user_key AND DATALENGTH(u.v) = DATALENGTH(m.user_key)
        INNER JOIN @texts AS n ON n.n = j.n
        WHERE j.fresh = 0;
        INSERT INTO {schema}.digi_member (room_id, user_key, user_name, role, joined_at)
        SELECT j.r, u.v, n.v, j.o, j.t
        FROM OPENJSON(",
            $joined,
            ") WITH (r BIGINT '$.r', u INT '$.u', n INT '$.n', o BIGINT '$.o',
            t DATETIME2(3) '$.t', fresh INT '$.fresh') AS j
        INNER JOIN @texts AS u ON u.n = j.u
        INNER JOIN @texts AS n ON n.n = j.n
        WHERE j.fresh = 1;
    END;
"
        )
    };
}

/// A whole batch that was planned on heads as they were remembered. Parameters: node, number, outcomes; heads; and what
/// is written. Gives `moved`: 0, committed; 1, rolled back because a head was not as remembered.
macro_rules! apply {
    ($($write:tt)+) => {
        concat!(
            "BEGIN TRANSACTION;
INSERT INTO {schema}.digi_batch (node, number, at, outcomes) VALUES (@P1, @P2, SYSUTCDATETIME(), @P3);",
            move_heads!("@P4"),
            "IF @moved = 0
BEGIN",
            $($write)+,
            "    COMMIT TRANSACTION;
END
ELSE ROLLBACK TRANSACTION;
SELECT @moved AS moved;"
        )
    };
}

/// Inserted, updated, log, left, joined.
const APPLY: &str = apply!(write_rows!("@P5", "@P6", "@P7", "@P8", "@P9"));

/// Inserted, and nothing else, as of most batches.
const APPLY_ADDS: &str = apply!(insert_messages!("@P5"));

/// The beginning of a batch whose heads are locked first. Node, number; rooms. Gives the heads.
const CLAIM: &str =
    "INSERT INTO {schema}.digi_batch (node, number, at, outcomes) VALUES (@P1, @P2, SYSUTCDATETIME(), N'');
DECLARE @room BIGINT;
DECLARE rooms CURSOR LOCAL FAST_FORWARD FOR
    SELECT CAST(r.value AS BIGINT) FROM OPENJSON(@P3) AS r ORDER BY CAST(r.value AS BIGINT);
OPEN rooms;
FETCH NEXT FROM rooms INTO @room;
WHILE @@FETCH_STATUS = 0
BEGIN
    UPDATE {schema}.digi_head WITH (UPDLOCK) SET last_seq = last_seq WHERE room_id = @room;
    FETCH NEXT FROM rooms INTO @room;
END;
CLOSE rooms;
DEALLOCATE rooms;
SELECT h.room_id, h.epoch, h.last_seq, h.floor, h.last_at
FROM OPENJSON(@P3) AS r
INNER JOIN {schema}.digi_head AS h WITH (FORCESEEK) ON h.room_id = CAST(r.value AS BIGINT);";

/// Rows of such a batch: inserted, updated, log, left, joined.
const WRITE: &str = write_rows!("@P1", "@P2", "@P3", "@P4", "@P5");

/// Its heads and outcomes. Node, number, outcomes; heads. Gives `moved`, which is 0.
const FINISH: &str = concat!(
    "UPDATE {schema}.digi_batch SET outcomes = @P3 WHERE node = @P1 AND number = @P2;",
    move_heads!("@P4"),
    "SELECT @moved AS moved;"
);

/// Node, number. NULL outcomes: it was made void.
const VOID: &str =
    "INSERT INTO {schema}.digi_batch (node, number, at, outcomes) VALUES (@P1, @P2, SYSUTCDATETIME(), NULL);";

/// What became of a batch. Node, number.
const OUTCOMES: &str = "SELECT outcomes FROM {schema}.digi_batch WHERE node = @P1 AND number = @P2;";

/// A node's batches below a number.
const FORGET: &str = "DELETE FROM {schema}.digi_batch WHERE node = @P1 AND number < @P2;";

/// Up to a thousand batches that are older than an hour, whoever's; those that are being written are none of them and
/// not waited for. Gives how many.
const FORGET_OLD: &str = "DELETE TOP (1000) FROM {schema}.digi_batch WITH (READCOMMITTEDLOCK, READPAST)
WHERE at < DATEADD(HOUR, -1, SYSUTCDATETIME());";

/// The heads of rooms. The server is told to seek: where readers wait for writers, a scan would wait for all.
const HEADS: &str = "SELECT h.room_id, h.epoch, h.last_seq, h.floor, h.last_at
FROM OPENJSON(@P1) AS r
INNER JOIN {schema}.digi_head AS h WITH (FORCESEEK) ON h.room_id = CAST(r.value AS BIGINT);";

/// What happened in parts of rooms' logs: adds with client ids (`f` to `l`: ids), then whose membership changed
/// (`r` room, after `a`, through `t`).
const GAPS: &str = "SELECT m.id, m.sender_key, m.client_id
FROM OPENJSON(@P1) WITH (f BIGINT '$.f', l BIGINT '$.l') AS g
INNER JOIN {schema}.digi_message AS m WITH (FORCESEEK) ON m.id BETWEEN g.f AND g.l
WHERE m.client_id IS NOT NULL;
SELECT c.room_id, c.user_key
FROM OPENJSON(@P1) WITH (r BIGINT '$.r', a BIGINT '$.a', t BIGINT '$.t') AS g
INNER JOIN {schema}.digi_change AS c WITH (FORCESEEK) ON c.room_id = g.r AND c.seq > g.a AND c.seq <= g.t
WHERE c.user_key IS NOT NULL;";

/// The roles of users (`r` room, `u` user).
const ROLES: &str = "SELECT m.room_id, m.user_key, m.role
FROM OPENJSON(@P1) WITH (r BIGINT '$.r', u INT '$.u') AS w
INNER JOIN @texts AS u ON u.n = w.u
INNER JOIN {schema}.digi_member AS m WITH (FORCESEEK) ON m.room_id = w.r AND m.user_key = CAST(u.v AS NVARCHAR(191));";

/// Messages by id.
const MESSAGES: &str = concat!(
    "SELECT ",
    message_columns!(),
    "
FROM OPENJSON(@P1) AS w
INNER JOIN {schema}.digi_message AS m WITH (FORCESEEK) ON m.id = CAST(w.value AS BIGINT);"
);

/// Room, user. The head first, then what there is under the user's key.
const MEMBER: &str = "SELECT epoch, last_seq FROM {schema}.digi_head WHERE room_id = @P1;
SELECT user_key, role FROM {schema}.digi_member WHERE room_id = @P1 AND user_key = @P2;";

/// Room; after; the last number at most; the ids of messages there. The head first; then the log; then the messages
/// that were added, and those that were there before and changed.
const CHANGES: &str = concat!(
    "DECLARE @epoch BIGINT, @last BIGINT, @floor BIGINT, @through BIGINT;
SELECT @epoch = epoch, @last = last_seq, @floor = floor FROM {schema}.digi_head WHERE room_id = @P1;
SET @through = CASE WHEN @last < @P3 THEN @last ELSE @P3 END;
SELECT @epoch AS epoch, @last AS last_seq, @floor AS floor;
SELECT seq, kind, message_id, user_key
FROM {schema}.digi_change WHERE room_id = @P1 AND seq > @P2 AND seq <= @through;
SELECT ",
    message_columns!(),
    "
FROM {schema}.digi_message AS m WHERE m.id BETWEEN @P4 AND @P5 AND m.pos <= @through;
SELECT ",
    message_columns!(),
    "
FROM (SELECT DISTINCT c.message_id FROM {schema}.digi_change AS c
    WHERE c.room_id = @P1 AND c.seq > @P2 AND c.seq <= @through AND c.message_id < @P4) AS w
INNER JOIN {schema}.digi_message AS m WITH (FORCESEEK) ON m.id = w.message_id;"
);

/// Room, first and last id, how many.
const HISTORY: &str = concat!(
    "SELECT epoch, last_seq FROM {schema}.digi_head WHERE room_id = @P1;
SELECT TOP (@P4) ",
    message_columns!(),
    "
FROM {schema}.digi_message AS m WHERE m.id BETWEEN @P2 AND @P3 ORDER BY m.id DESC;"
);

/// The highest room id.
const HIGHEST_ROOM: &str = "SELECT COALESCE(MAX(id), 0) AS id FROM {schema}.digi_room;";

/// Id, name, kind, time, epoch.
const CREATE_ROOM: &str = "DECLARE @now DATETIME2(3) = CAST(@P4 AS DATETIME2(3));
INSERT INTO {schema}.digi_room (id, name, kind, created_at) VALUES (@P1, @P2, @P3, @now);
INSERT INTO {schema}.digi_head (room_id, epoch, last_seq, floor, last_at) VALUES (@P1, @P5, 0, 0, @now);";

/// A head where it is as it was read: room; epoch, `last_seq` as it was; epoch, `last_seq`, floor as it is to be.
const RAISE: &str = "UPDATE {schema}.digi_head SET epoch = @P4, last_seq = @P5, floor = @P6
WHERE room_id = @P1 AND epoch = @P2 AND last_seq = @P3;
SELECT @@ROWCOUNT AS changed;";

/// Every head. Now.
const RAISE_ALL: &str = "UPDATE {schema}.digi_head
SET floor = last_seq, epoch = CASE WHEN epoch + 1 > @P1 THEN epoch + 1 ELSE @P1 END;";

/// The first and the last of a room's messages that are older than a time: first and last id, time. Times never go back
/// in a room, so what is old enough stands in front of the first that is not.
const OLD: &str = "DECLARE @kept BIGINT;
SELECT @kept = MIN(id) FROM {schema}.digi_message WHERE id BETWEEN @P1 AND @P2 AND created_at >= CAST(@P3 AS DATETIME2(3));
SELECT MIN(id) AS oldest, MAX(id) AS newest
FROM {schema}.digi_message WHERE id BETWEEN @P1 AND COALESCE(@kept - 1, @P2);";

/// Room, number.
const RAISE_FLOOR: &str = "UPDATE {schema}.digi_head SET floor = @P2 WHERE room_id = @P1 AND floor < @P2;";

/// First and last id. Gives how many.
const REMOVE: &str = "DELETE FROM {schema}.digi_message WHERE id BETWEEN @P1 AND @P2;
SELECT @@ROWCOUNT AS removed;";

/// Room, number. Up to a thousand changes up to that number; gives how many.
const REMOVE_LOG: &str = "DELETE TOP (1000) FROM {schema}.digi_change WHERE room_id = @P1 AND seq <= @P2;
SELECT @@ROWCOUNT AS removed;";

/// The texts for one schema.
pub(super) struct Statements {
    pub(super) apply: String,
    pub(super) apply_adds: String,
    pub(super) claim: String,
    pub(super) write: String,
    pub(super) finish: String,
    pub(super) void: String,
    pub(super) outcomes: String,
    pub(super) forget: String,
    pub(super) forget_old: String,
    pub(super) heads: String,
    pub(super) gaps: String,
    pub(super) roles: String,
    pub(super) messages: String,
    pub(super) member: String,
    pub(super) changes: String,
    pub(super) history: String,
    pub(super) highest_room: String,
    pub(super) create_room: String,
    pub(super) raise: String,
    pub(super) raise_all: String,
    pub(super) old: String,
    pub(super) raise_floor: String,
    pub(super) remove: String,
    pub(super) remove_log: String,
}

impl Statements {
    /// `schema`: the name in brackets.
    pub(super) fn new(schema: &str) -> Self {
        let of = |text| in_schema(text, schema);
        Self {
            apply: of(APPLY),
            apply_adds: of(APPLY_ADDS),
            claim: of(CLAIM),
            write: of(WRITE),
            finish: of(FINISH),
            void: of(VOID),
            outcomes: of(OUTCOMES),
            forget: of(FORGET),
            forget_old: of(FORGET_OLD),
            heads: of(HEADS),
            gaps: of(GAPS),
            roles: of(ROLES),
            messages: of(MESSAGES),
            member: of(MEMBER),
            changes: of(CHANGES),
            history: of(HISTORY),
            highest_room: of(HIGHEST_ROOM),
            create_room: of(CREATE_ROOM),
            raise: of(RAISE),
            raise_all: of(RAISE_ALL),
            old: of(OLD),
            raise_floor: of(RAISE_FLOOR),
            remove: of(REMOVE),
            remove_log: of(REMOVE_LOG),
        }
    }
}

/// A text with the schema's name, in brackets, put in.
pub(super) fn in_schema(text: &str, schema: &str) -> String {
    text.replace("{schema}", schema)
}
