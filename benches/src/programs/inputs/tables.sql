CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, grp INTEGER, value REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :size)
INSERT INTO item SELECT i, 'name' || (i * 7919 % 1000003), i % 1009, i / 7.0 FROM n;
CREATE INDEX by_name ON item (name);
SELECT count(*), sum(value), min(name), max(name) FROM item;
SELECT sum(length(names)) FROM (SELECT grp, group_concat(name, ',') AS names FROM item GROUP BY grp);
SELECT count(*) FROM item a JOIN item b ON b.name = 'name' || a.id WHERE a.grp < 50;
UPDATE item SET name = name || 'x' WHERE id % 3 = 0;
DELETE FROM item WHERE id % 5 = 0;
SELECT count(DISTINCT name), total(length(name)) FROM item;
