-- Version 2: the batches that were committed, for stores that write through a connection of the host's own.

CREATE TABLE digi_batch (
    node     INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    at       INTEGER NOT NULL,               -- time of the batch; old rows are removed
    outcomes TEXT,                           -- NULL: made void
    PRIMARY KEY (node, number)
) WITHOUT ROWID;
