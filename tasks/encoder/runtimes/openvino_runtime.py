"""OpenVINO: Intel's runtime, used where it is installed and faster."""

from pathlib import Path
from typing import cast

import numpy as np

from storage.vectors.feature_file import Matrix
from tasks.encoder.embedder import Backbone
from tasks.encoder.pixels.transform import Pixels


def open_openvino(path: Path, lanes: int, threads: int) -> Backbone:
    """Open an exported backbone, with a stream for each lane.

    Args:
        path: The ONNX file.
        lanes: Calls at the same time.
        threads: Threads of each call.
    """
    import openvino

    options = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": lanes,
        "INFERENCE_NUM_THREADS": lanes * threads,
        "INFERENCE_PRECISION_HINT": "f32",  # some processors would compute in bfloat16 otherwise
    }
    model = openvino.Core().compile_model(str(path), "CPU", options)

    def embed(pixels: Pixels) -> Matrix:
        vectors = model.create_infer_request().infer({0: pixels})[0]
        return cast("Matrix", np.array(vectors))  # its memory belongs to the request

    return embed
