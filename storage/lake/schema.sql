-- The lake, version 3. One snapshot number pins all of these tables together.

CREATE TABLE lake_version (version INTEGER, made_at TIMESTAMPTZ);
COMMENT ON TABLE lake_version IS 'One row: which release of this file made the lake';
COMMENT ON COLUMN lake_version.version IS 'Version of the schema';
COMMENT ON COLUMN lake_version.made_at IS 'When';

CREATE TABLE guard (n BIGINT);
COMMENT ON TABLE guard IS 'One row that every commit updates, so that two commits at once conflict and one looks again';
COMMENT ON COLUMN guard.n IS 'How many commits there were';

CREATE TABLE images (
  image_id UUID, format VARCHAR, width INTEGER, height INTEGER, mode VARCHAR, bytes BIGINT, first_seen TIMESTAMPTZ
);
COMMENT ON TABLE images IS 'Every content ever seen, once; paths come and go, images stay';
COMMENT ON COLUMN images.image_id IS 'First 128 bits of the SHA-256 of the bytes';
COMMENT ON COLUMN images.format IS 'As Pillow names it: JPEG, PNG, ...';
COMMENT ON COLUMN images.width IS 'Pixels, before EXIF rotation';
COMMENT ON COLUMN images.height IS 'Pixels, before EXIF rotation';
COMMENT ON COLUMN images.mode IS 'As Pillow names it: RGB, L, P, CMYK, ...';
COMMENT ON COLUMN images.bytes IS 'Size of the file';
COMMENT ON COLUMN images.first_seen IS 'When a scan first read these bytes';

CREATE TABLE files (source VARCHAR, path VARCHAR, bytes BIGINT, mtime_ns BIGINT, etag VARCHAR, image_id UUID);
COMMENT ON TABLE files IS 'What lies where now: one row a path; an unchanged file changes no row';
COMMENT ON COLUMN files.source IS 'Name of the source';
COMMENT ON COLUMN files.path IS 'Relative to the root of the source; bytes that are not UTF-8 as \xNN, a backslash as two';
COMMENT ON COLUMN files.bytes IS 'Size when it was read';
COMMENT ON COLUMN files.mtime_ns IS 'Modification time when it was read, nanoseconds since 1970';
COMMENT ON COLUMN files.etag IS 'Version in an object store; null for a folder';
COMMENT ON COLUMN files.image_id IS 'The content; null where the bytes are no image (then failures has the reason)';

CREATE TABLE scans (
  source VARCHAR, root VARCHAR, scanned_at TIMESTAMPTZ, files BIGINT, opened BIGINT, ignored BIGINT,
  images BIGINT, new BIGINT, gone BIGINT, failed BIGINT
);
COMMENT ON TABLE scans IS 'What each look at a source saw';
COMMENT ON COLUMN scans.source IS 'Name of the source';
COMMENT ON COLUMN scans.root IS 'Where it lay';
COMMENT ON COLUMN scans.scanned_at IS 'When';
COMMENT ON COLUMN scans.files IS 'Files with an image''s name';
COMMENT ON COLUMN scans.opened IS 'Files that were read, because they were unknown or had changed';
COMMENT ON COLUMN scans.ignored IS 'Other files';
COMMENT ON COLUMN scans.images IS 'Distinct contents';
COMMENT ON COLUMN scans.new IS 'Contents that the lake had never seen';
COMMENT ON COLUMN scans.gone IS 'Contents that the scan before saw here and this one did not';
COMMENT ON COLUMN scans.failed IS 'Files and folders that could not be read as an image';

CREATE TABLE labels (label_set VARCHAR, image_id UUID, class VARCHAR, source VARCHAR, labelled_at TIMESTAMPTZ);
COMMENT ON TABLE labels IS 'Which class an image has now; earlier labels are in earlier snapshots';
COMMENT ON COLUMN labels.label_set IS 'The question that the class answers';
COMMENT ON COLUMN labels.image_id IS 'The image';
COMMENT ON COLUMN labels.class IS 'The answer';
COMMENT ON COLUMN labels.source IS 'Where the label came from';
COMMENT ON COLUMN labels.labelled_at IS 'When the lake learned it';

CREATE TABLE recipes (
  recipe_id VARCHAR, recipe VARCHAR, architecture VARCHAR, weights VARCHAR, cut VARCHAR, dim INTEGER, made_at TIMESTAMPTZ
);
COMMENT ON TABLE recipes IS 'Everything that decides a vector''s value';
COMMENT ON COLUMN recipes.recipe_id IS 'First 128 bits of the SHA-256 of the canonical JSON';
COMMENT ON COLUMN recipes.recipe IS 'The canonical JSON';
COMMENT ON COLUMN recipes.architecture IS 'Library and network';
COMMENT ON COLUMN recipes.weights IS 'SHA-256 of the bytes of the weights';
COMMENT ON COLUMN recipes.cut IS 'Where freezing ends';
COMMENT ON COLUMN recipes.dim IS 'Length of a vector';
COMMENT ON COLUMN recipes.made_at IS 'When it was first used';

CREATE TABLE recipe_requests (request_id VARCHAR, request VARCHAR, recipe_id VARCHAR, made_at TIMESTAMPTZ);
COMMENT ON TABLE recipe_requests IS 'Which settings led to which recipe: what was automatic stays as it was first decided';
COMMENT ON COLUMN recipe_requests.request_id IS 'Hash of the request';
COMMENT ON COLUMN recipe_requests.request IS 'Canonical JSON of the settings and of the digest of the weights';
COMMENT ON COLUMN recipe_requests.recipe_id IS 'The recipe';
COMMENT ON COLUMN recipe_requests.made_at IS 'When it was decided';

CREATE TABLE features (recipe_id VARCHAR, image_id UUID, vector FLOAT[]);
ALTER TABLE features SET PARTITIONED BY (recipe_id);
COMMENT ON TABLE features IS 'The vector of an image under a recipe: at most one';
COMMENT ON COLUMN features.recipe_id IS 'The recipe';
COMMENT ON COLUMN features.image_id IS 'The image';
COMMENT ON COLUMN features.vector IS 'As long as recipes.dim, rounded to the recipe''s stored precision';

CREATE TABLE shards (recipe_id VARCHAR, images BIGINT, failed BIGINT, seconds DOUBLE, bytes BIGINT, committed_at TIMESTAMPTZ);
COMMENT ON TABLE shards IS 'What each committed piece of embedding cost: the pace that plan estimates from';
COMMENT ON COLUMN shards.recipe_id IS 'The recipe';
COMMENT ON COLUMN shards.images IS 'Features that it added';
COMMENT ON COLUMN shards.failed IS 'Images that failed in it';
COMMENT ON COLUMN shards.seconds IS 'From the first file opened to the Parquet file closed';
COMMENT ON COLUMN shards.bytes IS 'Size of the Parquet file';
COMMENT ON COLUMN shards.committed_at IS 'When';

CREATE TABLE failures (
  source VARCHAR, path VARCHAR, image_id UUID, recipe_id VARCHAR, stage VARCHAR, reason VARCHAR, failed_at TIMESTAMPTZ
);
COMMENT ON TABLE failures IS 'What could not be read, decoded or embedded, until it can be';
COMMENT ON COLUMN failures.source IS 'Name of the source';
COMMENT ON COLUMN failures.path IS 'Written as in files';
COMMENT ON COLUMN failures.image_id IS 'The image; null where the bytes are none';
COMMENT ON COLUMN failures.recipe_id IS 'The recipe under which it failed; null where it failed in the scan';
COMMENT ON COLUMN failures.stage IS 'read (tried again by every run), probe, decode or embed (tried again on request)';
COMMENT ON COLUMN failures.reason IS 'In words';
COMMENT ON COLUMN failures.failed_at IS 'When';

CREATE TABLE canaries (
  recipe_id VARCHAR, probe VARCHAR, image BLOB, vector FLOAT[], tolerance DOUBLE, made_with VARCHAR, images_per_second DOUBLE,
  made_at TIMESTAMPTZ
);
COMMENT ON TABLE canaries IS 'Probe images and the vectors that they had when the recipe was first used';
COMMENT ON COLUMN canaries.recipe_id IS 'The recipe';
COMMENT ON COLUMN canaries.probe IS 'Name of a generated probe image, or image_id of one of the lake''s';
COMMENT ON COLUMN canaries.image IS 'Bytes of a generated probe; null for an image of the lake, which is read from its file';
COMMENT ON COLUMN canaries.vector IS 'Its vector then';
COMMENT ON COLUMN canaries.tolerance IS 'Largest distance, relative to the vector''s length, that counts as the same numbers';
COMMENT ON COLUMN canaries.made_with IS 'Libraries and device that made it, as JSON';
COMMENT ON COLUMN canaries.images_per_second IS 'Pace of full batches through the backbone then';
COMMENT ON COLUMN canaries.made_at IS 'When';

CREATE TABLE heads (
  training_id VARCHAR, label_set VARCHAR, recipe_id VARCHAR, snapshot BIGINT, settings VARCHAR, metrics VARCHAR,
  trained_at TIMESTAMPTZ, code VARCHAR
);
COMMENT ON TABLE heads IS 'Every head that was trained';
COMMENT ON COLUMN heads.training_id IS 'Hash of recipe, settings and training rows: the same question has the same head';
COMMENT ON COLUMN heads.label_set IS 'The question that it answers';
COMMENT ON COLUMN heads.recipe_id IS 'The recipe of its features';
COMMENT ON COLUMN heads.snapshot IS 'The snapshot from which its rows were read';
COMMENT ON COLUMN heads.settings IS 'Canonical JSON of the settings, seed and split included';
COMMENT ON COLUMN heads.metrics IS 'JSON: measured once, on the test split';
COMMENT ON COLUMN heads.trained_at IS 'When';
COMMENT ON COLUMN heads.code IS 'Release and commit of Frostline that trained it';

CREATE TABLE training_sets (training_id VARCHAR, image_id UUID, class VARCHAR, split VARCHAR);
COMMENT ON TABLE training_sets IS 'The exact rows behind a head: one an image, of several labels one a label';
COMMENT ON COLUMN training_sets.training_id IS 'The training';
COMMENT ON COLUMN training_sets.image_id IS 'The image';
COMMENT ON COLUMN training_sets.class IS 'Its class then';
COMMENT ON COLUMN training_sets.split IS 'train, validation or test';

CREATE TABLE models (name VARCHAR, version INTEGER, training_id VARCHAR, run_id VARCHAR, alias VARCHAR, registered_at TIMESTAMPTZ);
COMMENT ON TABLE models IS 'Every model version that was registered in MLflow';
COMMENT ON COLUMN models.name IS 'Registered name';
COMMENT ON COLUMN models.version IS 'Registered version';
COMMENT ON COLUMN models.training_id IS 'The head in it';
COMMENT ON COLUMN models.run_id IS 'MLflow run';
COMMENT ON COLUMN models.alias IS 'Alias that it won when it was registered; null where it won none';
COMMENT ON COLUMN models.registered_at IS 'When';

CREATE TABLE predictions (name VARCHAR, version INTEGER, image_id UUID, class VARCHAR, probability FLOAT, predicted_at TIMESTAMPTZ);
COMMENT ON TABLE predictions IS 'What a registered model says of the images of its source';
COMMENT ON COLUMN predictions.name IS 'Registered name';
COMMENT ON COLUMN predictions.version IS 'Registered version';
COMMENT ON COLUMN predictions.image_id IS 'The image';
COMMENT ON COLUMN predictions.class IS 'The likeliest class, or neither; of several labels, each that is given has a row';
COMMENT ON COLUMN predictions.probability IS 'Its probability';
COMMENT ON COLUMN predictions.predicted_at IS 'When';

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

CREATE VIEW unlabelled AS
  SELECT DISTINCT f.source, f.image_id FROM files f
  WHERE f.image_id IS NOT NULL AND f.image_id NOT IN (SELECT image_id FROM labels);
COMMENT ON VIEW unlabelled IS 'Images that lie in a source and have no label';

CREATE VIEW conflicts AS
  SELECT label_set, image_id, list_sort(list(class)) AS classes FROM labels
  GROUP BY label_set, image_id HAVING count(DISTINCT class) > 1;
COMMENT ON VIEW conflicts IS 'The same bytes under several classes: left out of training, unless an image may have several labels';

CREATE VIEW latest_predictions AS
  SELECT * FROM predictions QUALIFY version = max(version) OVER (PARTITION BY name);
COMMENT ON VIEW latest_predictions IS 'What the newest version of each model says';

CREATE VIEW image_lineage AS
  WITH made AS (
    SELECT m.name, m.version, m.training_id, m.run_id, h.recipe_id, h.snapshot,
      contains(coalesce(h.settings, ''), '"multi_label":true') AS several
    FROM models m JOIN heads h USING (training_id)
  ), used AS (
    SELECT t.image_id, m.name, m.version, t.class, t.split, CASE WHEN m.several THEN t.class ELSE '' END AS label
    FROM training_sets t JOIN made m USING (training_id)
  ), said AS (
    SELECT p.image_id, p.name, p.version, p.class, p.probability, CASE WHEN m.several THEN p.class ELSE '' END AS label
    FROM predictions p JOIN made m USING (name, version)
  )
  SELECT image_id, name, version, u.class, u.split, s.class AS predicted, s.probability, m.run_id, m.recipe_id, m.snapshot
  FROM used u FULL JOIN said s USING (image_id, name, version, label) JOIN made m USING (name, version);
COMMENT ON VIEW image_lineage IS 'A row for each image and model version that used it, of several labels a row for each: the class and split (null where it was not trained or measured on it) and what the model says of it (null where it was not asked, or does not give this label)';

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

INSERT INTO lake_version VALUES (3, now());
INSERT INTO guard VALUES (0);
