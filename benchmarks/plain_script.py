"""What people write instead: embed new images with timm, keep the vectors by SHA-256, fit and save a head.

``python benchmarks/plain_script.py FOLDER STORE WEIGHTS``. It keeps no labels, splits, versions or measurements.
"""

import hashlib
import sys
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader, Dataset

folder, store, weights = map(Path, sys.argv[1:])
paths = sorted(folder.glob("*/*.jpg"))
digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
table, version = store / "vectors.parquet", hashlib.sha256(weights.read_bytes()).hexdigest()
known: dict[str, list[float]] = {}
if table.exists() and (store / "weights").read_text() == version:
    stored = pq.read_table(table).to_pydict()
    known = dict(zip(stored["sha256"], stored["vector"], strict=True))
missing = {digest: path for digest, path in zip(digests, paths, strict=True) if digest not in known}
if missing:
    model = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(weights, weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    model.reset_classifier(0)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))

    class Images(Dataset[torch.Tensor]):
        """The missing images."""

        def __len__(self) -> int:  # noqa: D105
            return len(missing)

        def __getitem__(self, index: int) -> torch.Tensor:  # noqa: D105
            tensor: torch.Tensor = transform(Image.open([*missing.values()][index]).convert("RGB"))
            return tensor

    with torch.inference_mode():
        vectors = torch.cat([model(batch) for batch in DataLoader(Images(), batch_size=32, num_workers=2)]).numpy()
    known |= dict(zip(missing, vectors.tolist(), strict=True))
    store.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"sha256": list(known), "vector": list(known.values())}), table)
    (store / "weights").write_text(version)
features = np.array([known[digest] for digest in digests], np.float32)
head = LogisticRegression(max_iter=1000).fit(features, [path.parent.name for path in paths])
joblib.dump(head, store / "head.joblib")
