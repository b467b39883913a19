-- From version 5 to version 6: versions count within a registry; promotions are recorded, and the champion is what people see.

ALTER TABLE models ADD COLUMN registry VARCHAR DEFAULT '';
COMMENT ON COLUMN models.registry IS 'Identity of the registered model in MLflow, within which versions count; empty until the next run for versions of earlier releases';
ALTER TABLE predictions ADD COLUMN registry VARCHAR DEFAULT '';
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

-- Until now the alias at registration was all that was recorded.
INSERT INTO promotions SELECT name, registry, version, 'promoted by an earlier release', registered_at FROM models WHERE alias IS NOT NULL;

CREATE VIEW champions AS
  SELECT p.name, p.version, p.promoted_at AS since, lead(p.promoted_at) OVER newer AS until, p.reason,
    (SELECT count(DISTINCT g.image_id) FROM gate_rows g
     WHERE g.name = p.name AND g.registry = p.registry AND g.version = p.version) AS images,
    p.registry
  FROM promotions p WINDOW newer AS (PARTITION BY p.name ORDER BY p.promoted_at, p.version);
COMMENT ON VIEW champions IS 'Which version of each model was champion, from when until when (null: still is), why, and on how many images of gate_rows';

DROP VIEW latest_predictions;
CREATE VIEW latest_predictions AS
  SELECT p.* EXCLUDE (registry) FROM predictions p JOIN champions c USING (name, registry, version) WHERE c.until IS NULL;
COMMENT ON VIEW latest_predictions IS 'Predictions of the champion of each model';

DROP VIEW image_lineage;
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

COMMENT ON COLUMN models.alias IS 'Alias that the version received at registration; null if none. The view champions says who is champion now';

UPDATE lake_version SET version = 6;
