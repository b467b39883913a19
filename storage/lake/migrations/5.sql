-- From version 4 to version 5: an erasure marks the leases of that moment, whose runs may still hold an erased image.

ALTER TABLE leases ADD COLUMN erased BOOLEAN;
COMMENT ON COLUMN leases.erased IS 'Whether images were erased since it was taken, which its run may still hold; null if none were';
COMMENT ON TABLE leases IS 'Which images a run is embedding now, so that no other run does the same work; and who is rewriting files of vectors';
COMMENT ON COLUMN leases.recipe_id IS 'The recipe; null if files of any recipe are rewritten';
COMMENT ON COLUMN leases.first IS 'First image of the shard, in the order of image_id; null if files are rewritten';
COMMENT ON COLUMN leases.last IS 'Last image of the shard; null if files are rewritten';
COMMENT ON COLUMN leases.holder IS 'The run: a random id, the host, and what identifies the process on it';

UPDATE lake_version SET version = 5;
