-- From version 6 to version 7: splits are recorded, given splits are read from folders, files are compared by more.

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

-- Images stay where recorded trainings placed them. If trainings with groups disagree, the newest counts.
INSERT INTO splits
  WITH trainings AS (
    SELECT training_id, label_set, snapshot, trained_at, concat(
        '{', CASE WHEN settings->>'group' IS NOT NULL THEN concat('"group":', (settings->'group')::VARCHAR, ',') END,
        CASE WHEN settings->>'near_duplicates' = 'true' THEN '"near_duplicates":true,' END,
        '"seed":', settings->>'seed', ',"test":', settings->>'test', ',"validation":', settings->>'validation', '}'
      ) AS scheme
    FROM heads
    WHERE CASE WHEN json_valid(settings) THEN json_type(settings) = 'OBJECT' AND coalesce(settings->>'split', 'hash') = 'hash' END
  )
  SELECT label_set, scheme, image_id, arg_max(split, trained_at), 'hash', min(snapshot), min(trained_at)
  FROM training_sets JOIN trainings USING (training_id) GROUP BY label_set, scheme, image_id;

ALTER TABLE files ADD COLUMN ctime_ns BIGINT;
COMMENT ON COLUMN files.ctime_ns IS 'Time of the last change of the file or its metadata, nanoseconds since 1970; null until the first scan by a release of version 7';
ALTER TABLE files ADD COLUMN inode BIGINT;
COMMENT ON COLUMN files.inode IS 'Number of the file in its file system; null until the first scan by a release of version 7';
ALTER TABLE files ADD COLUMN given_split VARCHAR;
COMMENT ON COLUMN files.given_split IS 'The split that the file''s folder gives it: train, validation or test; null if the layout has no split folders';

ALTER TABLE scans ADD COLUMN layout VARCHAR;
COMMENT ON COLUMN scans.layout IS 'What the folders of the source mean, such as class or split/class; null before version 7: class';

UPDATE lake_version SET version = 7;
