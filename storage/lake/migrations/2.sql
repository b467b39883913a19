-- From version 1 to version 2: leases, tags, erasures, checksums, the code behind a head, and lineage.

CREATE TABLE leases (recipe_id VARCHAR, first UUID, last UUID, holder VARCHAR, expires_at TIMESTAMPTZ);
COMMENT ON TABLE leases IS 'Which images a run is embedding now, so that no other does';
COMMENT ON COLUMN leases.recipe_id IS 'The recipe';
COMMENT ON COLUMN leases.first IS 'The first image of the shard, in the order of image_id';
COMMENT ON COLUMN leases.last IS 'The last image of the shard';
COMMENT ON COLUMN leases.holder IS 'The run that works on it';
COMMENT ON COLUMN leases.expires_at IS 'When the shard is free again, should the run be dead';

CREATE TABLE tags (tag VARCHAR, snapshot BIGINT, tagged_at TIMESTAMPTZ);
COMMENT ON TABLE tags IS 'Names of snapshots, which are never expired';
COMMENT ON COLUMN tags.tag IS 'The name';
COMMENT ON COLUMN tags.snapshot IS 'The snapshot';
COMMENT ON COLUMN tags.tagged_at IS 'When';

CREATE TABLE erasures (erasure_id VARCHAR, asked VARCHAR, images BIGINT, rows BIGINT, models VARCHAR, erased_at TIMESTAMPTZ);
COMMENT ON TABLE erasures IS 'What was erased from every snapshot: how much, never what';
COMMENT ON COLUMN erasures.erasure_id IS 'A random number';
COMMENT ON COLUMN erasures.asked IS 'Kind of the request: images, source or condition';
COMMENT ON COLUMN erasures.images IS 'How many images';
COMMENT ON COLUMN erasures.rows IS 'How many rows, of all tables';
COMMENT ON COLUMN erasures.models IS 'JSON: the model versions that were trained on one of them';
COMMENT ON COLUMN erasures.erased_at IS 'When';

CREATE TABLE checksums (path VARCHAR, bytes BIGINT, sha256 VARCHAR, sealed_at TIMESTAMPTZ);
COMMENT ON TABLE checksums IS 'What the lake''s Parquet files were when they were written';
COMMENT ON COLUMN checksums.path IS 'As the catalog names the file';
COMMENT ON COLUMN checksums.bytes IS 'Size';
COMMENT ON COLUMN checksums.sha256 IS 'SHA-256 of the bytes, 64 hexadecimal digits';
COMMENT ON COLUMN checksums.sealed_at IS 'When it was taken';

ALTER TABLE heads ADD COLUMN code VARCHAR;
COMMENT ON COLUMN heads.code IS 'Release and commit of Frostline that trained it';

DROP VIEW image_lineage;
CREATE VIEW image_lineage AS
  SELECT image_id, name, version, s.class, s.split, p.class AS predicted, p.probability, m.run_id, h.recipe_id, h.snapshot
  FROM (FROM training_sets JOIN models USING (training_id)) s FULL JOIN predictions p USING (image_id, name, version)
  JOIN models m USING (name, version) JOIN heads h ON h.training_id = m.training_id;
COMMENT ON VIEW image_lineage IS 'A row for each image and model version that used it: the class and split (null where it was not trained or measured on it) and what the model says of it (null where it was not asked)';

CREATE VIEW model_lineage AS
  SELECT m.name, m.version, m.alias, m.run_id, m.registered_at, m.training_id, h.label_set, h.snapshot, h.recipe_id,
    r.recipe, r.weights, h.settings, h.metrics, h.code, h.trained_at
  FROM models m JOIN heads h USING (training_id) LEFT JOIN recipes r USING (recipe_id);
COMMENT ON VIEW model_lineage IS 'A row for each model version: the snapshot, recipe, settings and code that it was made from';

CREATE VIEW model_rows AS
  SELECT m.name, m.version, t.image_id, t.class, t.split, f.vector
  FROM models m JOIN heads h USING (training_id) JOIN training_sets t USING (training_id)
  LEFT JOIN features f ON f.recipe_id = h.recipe_id AND f.image_id = t.image_id;
COMMENT ON VIEW model_rows IS 'The exact rows that each model version was trained, chosen and measured on, with their features';

UPDATE lake_version SET version = 2;
