"""A summary of the lake."""

from typing import Any

from storage.lake.lake import Lake

QUERIES = {
    "sources": """SELECT source, arg_max(root, scanned_at) AS root, max(scanned_at) AS scanned,
                    arg_max(images, scanned_at) AS images, arg_max(files, scanned_at) AS files,
                    arg_max(ignored, scanned_at) AS ignored FROM scans GROUP BY source ORDER BY source""",
    "labels": """SELECT label_set, count(DISTINCT class) AS classes, count(DISTINCT image_id) AS images
                 FROM labels GROUP BY label_set ORDER BY label_set""",
    "recipes": """SELECT r.recipe_id, architecture, cut, dim, made_at, coalesce(n, 0) AS features FROM recipes r
                  LEFT JOIN (SELECT recipe_id, count(*) AS n FROM features GROUP BY recipe_id) USING (recipe_id)
                  ORDER BY made_at""",
    "failures": """SELECT source, stage, reason, count(*) AS n FROM failures
                   GROUP BY ALL ORDER BY n DESC, reason LIMIT 20""",
    "models": """SELECT name, version, CASE WHEN c.since IS NOT NULL THEN coalesce(alias, 'champion') END AS alias,
                   heads.snapshot AS snapshot, m.registered_at, round((metrics->>'accuracy')::DOUBLE, 4) AS accuracy
                 FROM models m JOIN heads USING (training_id)
                 LEFT JOIN (FROM champions WHERE until IS NULL) c USING (name, registry, version)
                 ORDER BY registered_at DESC LIMIT 20""",
    "tags": "SELECT tag, tags.snapshot AS snapshot, tagged_at FROM tags ORDER BY tag",
}


def summarize(lake: Lake) -> dict[str, Any]:
    """Summarize sources, labels, images, recipes, features, failures, models and tags of the newest snapshot."""
    found: dict[str, Any] = {name: lake.dicts(sql) for name, sql in QUERIES.items()}
    found["images"] = int(lake.value("SELECT count(*) FROM images"))
    found["features"] = sum(row["features"] for row in found["recipes"])
    found["failed"] = int(lake.value("SELECT count(*) FROM failures"))
    found["snapshot"] = lake.snapshot if lake.exists else None
    return found
