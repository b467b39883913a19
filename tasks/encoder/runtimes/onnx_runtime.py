"""ONNX Runtime: on CPUs about twice as fast as torch for networks with depthwise convolutions."""

from pathlib import Path
from typing import cast

from storage.vectors.feature_file import Matrix
from tasks.encoder.embedder import Backbone
from tasks.encoder.pixels.transform import Pixels

ERROR = 3
"""Of its log, only errors."""


def open_onnxruntime(path: Path, lanes: int, threads: int) -> Backbone:  # noqa: ARG001 - as other openers
    """Open an exported backbone. One session serves all lanes, each with its own threads.

    Args:
        path: The ONNX file.
        lanes: Calls at the same time.
        threads: Threads of each call.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERROR
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would take the decoders' cores
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (pixels_input,) = session.get_inputs()

    def embed(pixels: Pixels) -> Matrix:
        try:
            return cast("Matrix", session.run(None, {pixels_input.name: pixels})[0])
        except onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException as error:
            if "allocate memory" in str(error):
                raise MemoryError(str(error)) from error
            raise

    return embed
