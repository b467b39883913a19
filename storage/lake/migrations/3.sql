-- From version 2 to version 3: an image may have several labels, so that its lineage has a row for each.

DROP VIEW image_lineage;
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

COMMENT ON COLUMN predictions.class IS 'The likeliest class, or neither; of several labels, each that is given has a row';
COMMENT ON TABLE training_sets IS 'The exact rows behind a head: one an image, of several labels one a label';
COMMENT ON VIEW conflicts IS 'The same bytes under several classes: left out of training, unless an image may have several labels';

UPDATE lake_version SET version = 3;
