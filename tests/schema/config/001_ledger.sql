-- One row per applied command. No unique key on purpose: a command that is applied twice must show.
CREATE TABLE ledger (
    id       INTEGER PRIMARY KEY,           -- counts up: the order in which commands were applied
    client   INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    nonce    INTEGER NOT NULL CHECK (nonce >= 0),
    bump     INTEGER NOT NULL DEFAULT 0     -- 1: the trigger counts it; 0: the command's own UPDATE does
) STRICT;

-- How many commands were applied: 0 counts all of this database, 1 those over both databases.
CREATE TABLE counter (
    id    INTEGER PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT;

INSERT INTO counter VALUES (0, 0), (1, 0);

CREATE TRIGGER ledger_bump AFTER INSERT ON ledger WHEN new.bump = 1 BEGIN
    UPDATE counter SET count = count + 1 WHERE id = 0;
END;
