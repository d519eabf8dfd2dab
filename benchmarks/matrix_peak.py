"""How fast this machine multiplies matrices in float32 and in bfloat16: why `precision = "auto"` chooses what it does.

python benchmarks/matrix_peak.py
"""

import torch

from machine import describe, matrix_peak
from tesserec.training.devices import resolve_device, resolve_precision

if __name__ == "__main__":
    peaks = {dtype: matrix_peak(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(describe())
    for dtype, peak in peaks.items():
        print(f"{dtype}: {peak / 1e9:,.0f} GFLOP/s")
    chosen = resolve_precision("auto", resolve_device())
    print(f"ratio {peaks[torch.bfloat16] / peaks[torch.float32]:.1f}; auto chooses {chosen}")
