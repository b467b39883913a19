-- The lake, version 8. One snapshot number pins all of these tables together.

CREATE TABLE lake_version (version INTEGER, made_at TIMESTAMPTZ);
COMMENT ON TABLE lake_version IS 'One row: the version of this schema';
COMMENT ON COLUMN lake_version.version IS 'Version of the schema';
COMMENT ON COLUMN lake_version.made_at IS 'When the lake was created';

CREATE TABLE guard (n BIGINT);
COMMENT ON TABLE guard IS 'One row that every commit updates, so that of two concurrent commits one conflicts and is retried';
COMMENT ON COLUMN guard.n IS 'Number of commits';

CREATE TABLE images (
  image_id UUID, format VARCHAR, width INTEGER, height INTEGER, mode VARCHAR, bytes BIGINT, first_seen TIMESTAMPTZ,
  decoding INTEGER
);
COMMENT ON TABLE images IS 'Every distinct image ever seen, one row each; paths come and go, images stay';
COMMENT ON COLUMN images.image_id IS 'First 128 bits of the SHA-256 of the image''s bytes';
COMMENT ON COLUMN images.format IS 'Format by its Pillow name: JPEG, PNG, ...';
COMMENT ON COLUMN images.width IS 'Width in pixels, before EXIF rotation';
COMMENT ON COLUMN images.height IS 'Height in pixels, before EXIF rotation';
COMMENT ON COLUMN images.mode IS 'Colour mode by its Pillow name: RGB, L, P, CMYK, ...';
COMMENT ON COLUMN images.bytes IS 'Size of the file in bytes';
COMMENT ON COLUMN images.first_seen IS 'When a scan first read these bytes';
COMMENT ON COLUMN images.decoding IS 'Version of the decoding rules under which the pixels of this kind of image last changed: 1, or 2 for kinds that earlier releases decoded wrongly; null if the file has not been read since, or its format never changed';

CREATE TABLE files (
  source VARCHAR, path VARCHAR, bytes BIGINT, mtime_ns BIGINT, etag VARCHAR, image_id UUID, ctime_ns BIGINT, inode BIGINT,
  given_split VARCHAR
);
COMMENT ON TABLE files IS 'The files of each source now, one row per path; a scan leaves the rows of unchanged files alone';
COMMENT ON COLUMN files.source IS 'Name of the source';
COMMENT ON COLUMN files.path IS 'Path relative to the root of the source; bytes that are not UTF-8 are written as \xNN, a backslash as two';
COMMENT ON COLUMN files.bytes IS 'Size in bytes when the file was last read';
COMMENT ON COLUMN files.mtime_ns IS 'Modification time when the file was last read, nanoseconds since 1970';
COMMENT ON COLUMN files.etag IS 'Version in an object store; null for a folder';
COMMENT ON COLUMN files.image_id IS 'The image in the file; null if its bytes are not an image (failures has the reason)';
COMMENT ON COLUMN files.ctime_ns IS 'Time of the last change of the file or its metadata, nanoseconds since 1970; null until the first scan by a release of version 7';
COMMENT ON COLUMN files.inode IS 'Number of the file in its file system; null until the first scan by a release of version 7';
COMMENT ON COLUMN files.given_split IS 'The split that the file''s folder gives it: train, validation or test; null if the layout has no split folders';

CREATE TABLE scans (
  source VARCHAR, root VARCHAR, scanned_at TIMESTAMPTZ, files BIGINT, opened BIGINT, ignored BIGINT,
  images BIGINT, new BIGINT, gone BIGINT, failed BIGINT, layout VARCHAR
);
COMMENT ON TABLE scans IS 'One row per scan of a source';
COMMENT ON COLUMN scans.source IS 'Name of the source';
COMMENT ON COLUMN scans.root IS 'Where the source was';
COMMENT ON COLUMN scans.scanned_at IS 'When it was scanned';
COMMENT ON COLUMN scans.files IS 'Number of files whose name is that of an image';
COMMENT ON COLUMN scans.opened IS 'Number of files that were read because they were new or had changed';
COMMENT ON COLUMN scans.ignored IS 'Number of other files';
COMMENT ON COLUMN scans.images IS 'Number of distinct images';
COMMENT ON COLUMN scans.new IS 'Number of images that the lake had never seen before';
COMMENT ON COLUMN scans.gone IS 'Number of images that were in the source before and no longer are';
COMMENT ON COLUMN scans.failed IS 'Number of files and folders that could not be read as an image';
COMMENT ON COLUMN scans.layout IS 'What the folders of the source mean, such as class or split/class; null before version 7: class';

CREATE TABLE labels (label_set VARCHAR, image_id UUID, class VARCHAR, source VARCHAR, labelled_at TIMESTAMPTZ);
COMMENT ON TABLE labels IS 'The current class of each image; earlier labels are in earlier snapshots';
COMMENT ON COLUMN labels.label_set IS 'The question that the class answers';
COMMENT ON COLUMN labels.image_id IS 'The image';
COMMENT ON COLUMN labels.class IS 'The answer';
COMMENT ON COLUMN labels.source IS 'Where the label came from: a source, or review: and the file with the decision';
COMMENT ON COLUMN labels.labelled_at IS 'When the lake recorded the label';

CREATE TABLE recipes (
  recipe_id VARCHAR, recipe VARCHAR, architecture VARCHAR, weights VARCHAR, cut VARCHAR, dim INTEGER, made_at TIMESTAMPTZ
);
COMMENT ON TABLE recipes IS 'Everything that decides the value of a vector';
COMMENT ON COLUMN recipes.recipe_id IS 'First 128 bits of the SHA-256 of the canonical JSON';
COMMENT ON COLUMN recipes.recipe IS 'The recipe as canonical JSON';
COMMENT ON COLUMN recipes.architecture IS 'Library and network';
COMMENT ON COLUMN recipes.weights IS 'SHA-256 of the weights file';
COMMENT ON COLUMN recipes.cut IS 'Where in the backbone freezing ends';
COMMENT ON COLUMN recipes.dim IS 'Length of a vector';
COMMENT ON COLUMN recipes.made_at IS 'When the recipe was first used';

CREATE TABLE recipe_requests (request_id VARCHAR, request VARCHAR, recipe_id VARCHAR, made_at TIMESTAMPTZ);
COMMENT ON TABLE recipe_requests IS 'Which settings led to which recipe, so that automatic choices are made only once';
COMMENT ON COLUMN recipe_requests.request_id IS 'Hash of the request';
COMMENT ON COLUMN recipe_requests.request IS 'Canonical JSON of the settings and the digest of the weights';
COMMENT ON COLUMN recipe_requests.recipe_id IS 'The recipe';
COMMENT ON COLUMN recipe_requests.made_at IS 'When the recipe was decided';

CREATE TABLE features (recipe_id VARCHAR, image_id UUID, vector FLOAT[]);
ALTER TABLE features SET PARTITIONED BY (recipe_id);
COMMENT ON TABLE features IS 'The vector of each image under each recipe, at most one row per pair';
COMMENT ON COLUMN features.recipe_id IS 'The recipe';
COMMENT ON COLUMN features.image_id IS 'The image';
COMMENT ON COLUMN features.vector IS 'The vector: recipes.dim numbers, rounded to the recipe''s stored precision';

CREATE TABLE shards (recipe_id VARCHAR, images BIGINT, failed BIGINT, seconds DOUBLE, bytes BIGINT, committed_at TIMESTAMPTZ);
COMMENT ON TABLE shards IS 'What each committed shard of embedding cost; plan estimates durations from it';
COMMENT ON COLUMN shards.recipe_id IS 'The recipe';
COMMENT ON COLUMN shards.images IS 'Number of features added';
COMMENT ON COLUMN shards.failed IS 'Number of images that failed';
COMMENT ON COLUMN shards.seconds IS 'Seconds from opening the first file to closing the Parquet file';
COMMENT ON COLUMN shards.bytes IS 'Size of the Parquet file in bytes';
COMMENT ON COLUMN shards.committed_at IS 'When the shard was committed';

CREATE TABLE failures (
  source VARCHAR, path VARCHAR, image_id UUID, recipe_id VARCHAR, stage VARCHAR, reason VARCHAR, failed_at TIMESTAMPTZ
);
COMMENT ON TABLE failures IS 'Files and images that could not be read, decoded or embedded; a row goes when a retry succeeds';
COMMENT ON COLUMN failures.source IS 'Name of the source';
COMMENT ON COLUMN failures.path IS 'Path, written as in files';
COMMENT ON COLUMN failures.image_id IS 'The image; null if the bytes are not an image';
COMMENT ON COLUMN failures.recipe_id IS 'The recipe under which it failed; null if it failed during a scan';
COMMENT ON COLUMN failures.stage IS 'read (every run retries), probe, decode or embed (retried on request)';
COMMENT ON COLUMN failures.reason IS 'The reason, in words';
COMMENT ON COLUMN failures.failed_at IS 'When it failed';

CREATE TABLE canaries (
  recipe_id VARCHAR, probe VARCHAR, image BLOB, vector FLOAT[], tolerance DOUBLE, made_with VARCHAR, images_per_second DOUBLE,
  made_at TIMESTAMPTZ
);
COMMENT ON TABLE canaries IS 'Probe images with the vectors that they had when the recipe was first used';
COMMENT ON COLUMN canaries.recipe_id IS 'The recipe';
COMMENT ON COLUMN canaries.probe IS 'Name of a generated probe image, or image_id of an image of the lake';
COMMENT ON COLUMN canaries.image IS 'Bytes of a generated probe image; null for an image of the lake, which is read from its file';
COMMENT ON COLUMN canaries.vector IS 'Its vector at that time';
COMMENT ON COLUMN canaries.tolerance IS 'Largest distance, relative to the length of the vector, that counts as equal';
COMMENT ON COLUMN canaries.made_with IS 'JSON: the libraries and the device that computed the vector';
COMMENT ON COLUMN canaries.images_per_second IS 'Throughput of full batches through the backbone at that time';
COMMENT ON COLUMN canaries.made_at IS 'When the vector was computed';

CREATE TABLE heads (
  training_id VARCHAR, label_set VARCHAR, recipe_id VARCHAR, snapshot BIGINT, settings VARCHAR, metrics VARCHAR,
  trained_at TIMESTAMPTZ, code VARCHAR, kind VARCHAR, hyperparameters VARCHAR, views VARCHAR[]
);
COMMENT ON TABLE heads IS 'Every head that was trained';
COMMENT ON COLUMN heads.training_id IS 'Hash of recipe, settings and training rows: training the same again gives the same id';
COMMENT ON COLUMN heads.label_set IS 'The label set that the head answers';
COMMENT ON COLUMN heads.recipe_id IS 'The recipe of the features that it was trained on';
COMMENT ON COLUMN heads.snapshot IS 'The snapshot from which its training rows were read';
COMMENT ON COLUMN heads.settings IS 'Canonical JSON of the training settings, seed and split included';
COMMENT ON COLUMN heads.metrics IS 'JSON: metrics on the test split, measured once';
COMMENT ON COLUMN heads.trained_at IS 'When it was trained';
COMMENT ON COLUMN heads.code IS 'Release and commit of Frostline that trained it; null for heads of the first release';
COMMENT ON COLUMN heads.kind IS 'The kind of head chosen on validation: softmax, ridge, prototypes, knn, mlp, mlp2 or tail; sigmoid where an image may have several labels';
COMMENT ON COLUMN heads.hyperparameters IS 'JSON: the hyperparameters chosen on validation, such as l2, nearest, learning_rate, weight_decay or epoch';
COMMENT ON COLUMN heads.views IS 'The recipes of the views that were used beside the images themselves; empty if none';

CREATE TABLE training_sets (training_id VARCHAR, image_id UUID, class VARCHAR, split VARCHAR);
COMMENT ON TABLE training_sets IS 'The exact training rows of each head: one per image, or one per label where an image may have several';
COMMENT ON COLUMN training_sets.training_id IS 'The training';
COMMENT ON COLUMN training_sets.image_id IS 'The image';
COMMENT ON COLUMN training_sets.class IS 'Its class at that time';
COMMENT ON COLUMN training_sets.split IS 'train, validation or test';

CREATE TABLE splits (
  label_set VARCHAR, scheme VARCHAR, image_id UUID, split VARCHAR, origin VARCHAR, snapshot BIGINT, placed_at TIMESTAMPTZ
);
COMMENT ON TABLE splits IS 'The split of each image that was ever trained or measured on, one row per scheme: it never changes';
COMMENT ON COLUMN splits.label_set IS 'The label set that was trained on';
COMMENT ON COLUMN splits.scheme IS 'JSON of the settings that decide splits: seed, shares, group, near_duplicates; another scheme splits anew';
COMMENT ON COLUMN splits.image_id IS 'The image';
COMMENT ON COLUMN splits.split IS 'train, validation or test';
COMMENT ON COLUMN splits.origin IS 'dealt: by rank of its hash within its class; given: by the folders of its source; hash: by its hash alone, in a release before version 7';
COMMENT ON COLUMN splits.snapshot IS 'The snapshot whose images were split when it was placed';
COMMENT ON COLUMN splits.placed_at IS 'When it was placed';

CREATE TABLE models (name VARCHAR, version INTEGER, training_id VARCHAR, run_id VARCHAR, alias VARCHAR, registered_at TIMESTAMPTZ, registry VARCHAR DEFAULT '');
COMMENT ON TABLE models IS 'Every model version registered in MLflow';
COMMENT ON COLUMN models.name IS 'Name of the registered model';
COMMENT ON COLUMN models.version IS 'Version of the registered model';
COMMENT ON COLUMN models.training_id IS 'The head in the model';
COMMENT ON COLUMN models.run_id IS 'The MLflow run';
COMMENT ON COLUMN models.alias IS 'Alias that the version received at registration; null if none. The view champions says who is champion now';
COMMENT ON COLUMN models.registered_at IS 'When it was registered';
COMMENT ON COLUMN models.registry IS 'Identity of the registered model in MLflow, within which versions count; empty until the next run for versions of earlier releases';

CREATE TABLE predictions (name VARCHAR, version INTEGER, image_id UUID, class VARCHAR, probability FLOAT, predicted_at TIMESTAMPTZ, registry VARCHAR DEFAULT '');
COMMENT ON TABLE predictions IS 'Predictions of each registered model version for the images of its sources';
COMMENT ON COLUMN predictions.name IS 'Name of the registered model';
COMMENT ON COLUMN predictions.version IS 'Version of the registered model';
COMMENT ON COLUMN predictions.image_id IS 'The image';
COMMENT ON COLUMN predictions.class IS 'The most probable class, or neither; with several labels per image, one row per predicted label';
COMMENT ON COLUMN predictions.probability IS 'Probability of the class';
COMMENT ON COLUMN predictions.predicted_at IS 'When it was predicted';
COMMENT ON COLUMN predictions.registry IS 'As in models';

CREATE TABLE promotions (name VARCHAR, registry VARCHAR, version INTEGER, reason VARCHAR, promoted_at TIMESTAMPTZ);
COMMENT ON TABLE promotions IS 'Each time that a version became champion, by the gate or by hand';
COMMENT ON COLUMN promotions.name IS 'Name of the registered model';
COMMENT ON COLUMN promotions.registry IS 'As in models';
COMMENT ON COLUMN promotions.version IS 'Version of the registered model';
COMMENT ON COLUMN promotions.reason IS 'Why, in words, with the figures of both versions';
COMMENT ON COLUMN promotions.promoted_at IS 'When the lake recorded it';

CREATE TABLE gate_rows (name VARCHAR, registry VARCHAR, version INTEGER, image_id UUID, class VARCHAR);
COMMENT ON TABLE gate_rows IS 'The test rows on which the gate compared each version with the champion; those of a first version are its own test rows';
COMMENT ON COLUMN gate_rows.name IS 'Name of the registered model';
COMMENT ON COLUMN gate_rows.registry IS 'As in models';
COMMENT ON COLUMN gate_rows.version IS 'The version that was to become champion';
COMMENT ON COLUMN gate_rows.image_id IS 'The image';
COMMENT ON COLUMN gate_rows.class IS 'Its class at that time';

CREATE TABLE leases (
  recipe_id VARCHAR, first UUID, last UUID, holder VARCHAR, expires_at TIMESTAMPTZ, erased BOOLEAN
);
COMMENT ON TABLE leases IS 'Which images a run is embedding now, so that no other run does the same work; and who is rewriting files of vectors';
COMMENT ON COLUMN leases.recipe_id IS 'The recipe; null if files of any recipe are rewritten';
COMMENT ON COLUMN leases.first IS 'First image of the shard, in the order of image_id; null if files are rewritten';
COMMENT ON COLUMN leases.last IS 'Last image of the shard; null if files are rewritten';
COMMENT ON COLUMN leases.holder IS 'The run: a random id, the host, and what identifies the process on it';
COMMENT ON COLUMN leases.expires_at IS 'When the lease expires, should the run be dead';
COMMENT ON COLUMN leases.erased IS 'Whether images were erased since it was taken, which its run may still hold; null if none were';

CREATE TABLE tags (tag VARCHAR, snapshot BIGINT, tagged_at TIMESTAMPTZ);
COMMENT ON TABLE tags IS 'Names of snapshots; a tagged snapshot never expires';
COMMENT ON COLUMN tags.tag IS 'The name';
COMMENT ON COLUMN tags.snapshot IS 'The snapshot';
COMMENT ON COLUMN tags.tagged_at IS 'When it was tagged';

CREATE TABLE erasures (erasure_id VARCHAR, asked VARCHAR, images BIGINT, rows BIGINT, models VARCHAR, erased_at TIMESTAMPTZ);
COMMENT ON TABLE erasures IS 'What was erased from all snapshots: how much, never what';
COMMENT ON COLUMN erasures.erasure_id IS 'A random UUID';
COMMENT ON COLUMN erasures.asked IS 'Kind of request: images, source or condition';
COMMENT ON COLUMN erasures.images IS 'Number of images erased';
COMMENT ON COLUMN erasures.rows IS 'Number of rows deleted, over all tables';
COMMENT ON COLUMN erasures.models IS 'JSON: the model versions that were trained or measured on an erased image';
COMMENT ON COLUMN erasures.erased_at IS 'When the erasure was completed; null while it is unfinished';

CREATE TABLE checksums (path VARCHAR, bytes BIGINT, sha256 VARCHAR, sealed_at TIMESTAMPTZ);
COMMENT ON TABLE checksums IS 'Size and checksum of each Parquet file of the lake, taken when it was written';
COMMENT ON COLUMN checksums.path IS 'Path as in the catalog';
COMMENT ON COLUMN checksums.bytes IS 'Size in bytes';
COMMENT ON COLUMN checksums.sha256 IS 'SHA-256 of the bytes, 64 hexadecimal digits';
COMMENT ON COLUMN checksums.sealed_at IS 'When the checksum was taken';

CREATE VIEW unlabelled AS
  SELECT DISTINCT f.source, f.image_id FROM files f
  WHERE f.image_id IS NOT NULL AND f.image_id NOT IN (SELECT image_id FROM labels);
COMMENT ON VIEW unlabelled IS 'Images of each source that have no label';

CREATE VIEW conflicts AS
  SELECT label_set, image_id, list_sort(list(class)) AS classes FROM labels
  GROUP BY label_set, image_id HAVING count(DISTINCT class) > 1;
COMMENT ON VIEW conflicts IS 'Images with several classes: left out of training, unless an image may have several labels';

CREATE VIEW champions AS
  SELECT p.name, p.version, p.promoted_at AS since, lead(p.promoted_at) OVER newer AS until, p.reason,
    (SELECT count(DISTINCT g.image_id) FROM gate_rows g
     WHERE g.name = p.name AND g.registry = p.registry AND g.version = p.version) AS images,
    p.registry
  FROM promotions p WINDOW newer AS (PARTITION BY p.name ORDER BY p.promoted_at, p.version);
COMMENT ON VIEW champions IS 'Which version of each model was champion, from when until when (null: still is), why, and on how many images of gate_rows';

CREATE VIEW latest_predictions AS
  SELECT p.* EXCLUDE (registry) FROM predictions p JOIN champions c USING (name, registry, version) WHERE c.until IS NULL;
COMMENT ON VIEW latest_predictions IS 'Predictions of the champion of each model';

CREATE VIEW image_lineage AS
  WITH versions AS (
    SELECT m.name, m.registry, m.version, m.training_id, m.run_id, h.recipe_id, h.snapshot, h.kind IS NOT DISTINCT FROM 'sigmoid' AS multi_label
    FROM models m JOIN heads h USING (training_id)
  ), trained AS (
    SELECT t.image_id, v.name, v.registry, v.version, t.class, t.split, CASE WHEN v.multi_label THEN t.class ELSE '' END AS label
    FROM training_sets t JOIN versions v USING (training_id)
  ), predicted AS (
    SELECT p.image_id, p.name, p.registry, p.version, p.class, p.probability, CASE WHEN v.multi_label THEN p.class ELSE '' END AS label
    FROM predictions p JOIN versions v USING (name, registry, version)
  )
  SELECT image_id, name, version, t.class, t.split, p.class AS predicted, p.probability, v.run_id, v.recipe_id, v.snapshot
  FROM trained t FULL JOIN predicted p USING (image_id, name, registry, version, label) JOIN versions v USING (name, registry, version);
COMMENT ON VIEW image_lineage IS 'One row per image and model version that used it, or one per label if an image may have several: class and split in training (null if it was not in the training set) and the prediction (null if there is none, or not of this label)';

CREATE VIEW model_lineage AS
  SELECT m.name, m.version, m.alias, m.run_id, m.registered_at, m.training_id, h.label_set, h.snapshot, h.recipe_id,
    r.recipe, r.weights, h.settings, h.metrics, h.code, h.trained_at, h.kind, h.hyperparameters, h.views
  FROM models m JOIN heads h USING (training_id) LEFT JOIN recipes r USING (recipe_id);
COMMENT ON VIEW model_lineage IS 'One row per model version: the snapshot, recipe, settings and code that it was made from';

CREATE VIEW model_rows AS
  SELECT m.name, m.version, t.image_id, t.class, t.split, f.vector
  FROM models m JOIN heads h USING (training_id) JOIN training_sets t USING (training_id)
  LEFT JOIN features f ON f.recipe_id = h.recipe_id AND f.image_id = t.image_id;
COMMENT ON VIEW model_rows IS 'The exact rows that each model version was trained, validated and tested on, with their features';

INSERT INTO lake_version VALUES (8, now());
INSERT INTO guard VALUES (0);
