"""Label one scan with nnU-Net's own predictor, in a process of its own: ``python compare_nnunet.py RESULTS SCAN OUT``.

``OUT`` (npz) receives labels on the network's grid (in the network's axes), labels on the scan's grid (in the axes as
nnU-Net's reader gave them), and the seconds spent.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np


class SinglePrecision:
    """PyTorch as the predictor sees it, but for the type in which it sums tiles: half rounds near ties either way."""

    def __getattr__(self, name: str) -> object:
        import torch

        return torch.float32 if name == "half" else getattr(torch, name)


def main() -> None:
    """Run the predictor."""
    import torch
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    results, scan, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    folds = tuple(options.get("folds", ("all",)))
    if options.get("single", False):
        from nnunetv2.inference import predict_from_raw_data

        predict_from_raw_data.torch = SinglePrecision()
    torch.set_num_threads(2)
    predictor = nnUNetPredictor(
        use_mirroring=options.get("mirror", False), device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(results), folds)
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    used = resource.getrusage(resource.RUSAGE_SELF)
    begun_cpu_s = used.ru_utime + used.ru_stime
    started = time.perf_counter()
    reader = plans.image_reader_writer_class()
    image, properties = reader.read_images([scan])
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case_npy(
        image, None, properties, plans, configuration, predictor.dataset_json
    )
    prepared = time.perf_counter()
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    inferred = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF)
    own_grid_cpu_s = used.ru_utime + used.ru_stime - begun_cpu_s
    own_grid_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    native = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, predictor.label_manager, properties
    )
    ended = time.perf_counter()
    peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    largest = torch.topk(logits.float(), 2, dim=0).values
    np.savez_compressed(
        out,
        margin=(largest[0] - largest[1]).abs().numpy(),
        network=logits.float().argmax(0).numpy().astype(np.uint8),
        native=native.astype(np.uint8),
        data=data[0],
        seconds=[prepared - started, inferred - prepared, ended - inferred],
        own_grid_rss_mb=own_grid_rss_mb,
        own_grid_cpu_s=own_grid_cpu_s,
        peak_rss_mb=peak_rss_mb,
    )


if __name__ == "__main__":
    main()
