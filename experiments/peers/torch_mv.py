"""Times PyTorch's f16 matrix-vector product in a CUDA graph.

    python3 torch_mv.py 22016x4096 4096x4096 ...

Prints JSON: PyTorch's version, the device, and microseconds of a product by shape. As our own kernels are measured:
products rotate over copies of the weights that together exceed the cache and write the same output; a sample is the
mean of at least 64 of them, replayed as one graph behind a warm-up, by the device's events.
"""

import json
import sys

import torch

ROTATION_BYTES = 192 * 2**20
SAMPLES = 24


def time_products(rows: int, channels: int) -> list[float]:
    copies = max(2, -(-ROTATION_BYTES // (2 * rows * channels)))
    weights = [torch.randn(rows, channels, dtype=torch.float16, device="cuda") for _ in range(copies)]
    x = torch.randn(channels, dtype=torch.float16, device="cuda")
    y = torch.empty(rows, dtype=torch.float16, device="cuda")
    products = -(-64 // copies) * copies
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for weight in weights:
            torch.mv(weight, x, out=y)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for i in range(products):
            torch.mv(weights[i % copies], x, out=y)
    for _ in range(20):
        graph.replay()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(SAMPLES + 1)]
    events[0].record()
    for event in events[1:]:
        graph.replay()
        event.record()
    torch.cuda.synchronize()
    return [1000 * a.elapsed_time(b) / products for a, b in zip(events, events[1:])]


if not torch.cuda.is_available():
    sys.exit(f"PyTorch {torch.__version__} finds no CUDA device, must have one")
shapes = [tuple(map(int, shape.split("x"))) for shape in sys.argv[1:]]
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "device": torch.cuda.get_device_name(),
    "samples_us": {f"{rows}x{channels}": time_products(rows, channels) for rows, channels in shapes},
}))
