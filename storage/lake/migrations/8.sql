-- From version 7 to version 8: the version of the decoding rules that decides each image's pixels.

ALTER TABLE images ADD COLUMN decoding INTEGER;
COMMENT ON COLUMN images.decoding IS 'Version of the decoding rules under which the pixels of this kind of image last changed: 1, or 2 for kinds that earlier releases decoded wrongly; null if the file has not been read since, or its format never changed';

-- The decoder has changed, so that what failed under it is tried again once.
DELETE FROM files WHERE image_id IS NULL;
DELETE FROM failures WHERE stage IN ('probe', 'decode');

UPDATE lake_version SET version = 8;
