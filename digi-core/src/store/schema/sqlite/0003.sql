-- Version 3: what was committed and is not yet in digi_message and digi_head, in the order of the commits. Digi's native
-- store writes here first, because rows that are appended cost a tenth of rows scattered over rooms, and places them a
-- little later. Digi alone reads it.

CREATE TABLE digi_journal (
    n     INTEGER PRIMARY KEY,               -- 1, 2, 3 …; none is used twice
    batch BLOB NOT NULL                      -- messages and heads as they are since then
);

-- One row: what is numbered up to here has been placed.
CREATE TABLE digi_placed (
    n INTEGER NOT NULL
);

INSERT INTO digi_placed VALUES (0);
