-- From version 1 to version 2: leases, tags, erasures, checksums, and the code behind a head.

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

UPDATE lake_version SET version = 2;
