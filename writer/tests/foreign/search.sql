-- Virtual tables, for whoever was built with them: a full-text index on its own, and a box index.
CREATE VIRTUAL TABLE search USING fts5 (title, body, tokenize = 'porter unicode61');
INSERT INTO search (rowid, title, body) VALUES (3, 'Ducks', 'They were swimming'), (70, 'Geese', 'They fly');
DELETE FROM search WHERE rowid = 3;
INSERT INTO search (title, body) VALUES ('Ducks', 'They swim');
CREATE VIRTUAL TABLE boxes USING rtree (id, x0, x1, +name TEXT);
INSERT INTO boxes VALUES (1, -1.5, 2.5, 'one'), (2, 0, 1e10, NULL);
