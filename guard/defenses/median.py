"""Median filters as min/max networks: exact, differentiable, and fast inside an ONNX graph.

Both give what `scipy.ndimage.median_filter(size=..., mode="reflect")` gives. Sorting along the
columns is shared between neighbours, so the 3x3 median takes 18 minima and maxima per pixel
instead of the 38 of the classic 19-exchange network (Devillard 1998), and the 2x2 median five.
"""

import torch
from torch import Tensor


def median2(images: Tensor) -> Tensor:
    """The upper median of each pixel and its left, upper and upper-left neighbours.

    (..., H, W) to the same shape; beyond the border the image is mirrored.
    """
    rows = torch.cat([images[..., :1, :], images], dim=-2)
    above, here = rows[..., :-1, :], rows[..., 1:, :]
    low, high = torch.minimum(above, here), torch.maximum(above, here)
    low, high = (torch.cat([x[..., :1], x], dim=-1) for x in (low, high))
    return torch.maximum(
        torch.maximum(low[..., :-1], low[..., 1:]), torch.minimum(high[..., :-1], high[..., 1:])
    )


def median3(images: Tensor) -> Tensor:
    """The median of each 3x3 neighbourhood, (..., H, W) to the same shape.

    The median of nine is the median of: the largest column minimum, the median column median and
    the smallest column maximum.
    """
    rows = torch.cat([images[..., :1, :], images, images[..., -1:, :]], dim=-2)
    columns = _sort3(rows[..., :-2, :], rows[..., 1:-1, :], rows[..., 2:, :])
    low, middle, high = (torch.cat([x[..., :1], x, x[..., -1:]], dim=-1) for x in columns)
    return _median3(
        torch.maximum(torch.maximum(low[..., :-2], low[..., 1:-1]), low[..., 2:]),
        _median3(middle[..., :-2], middle[..., 1:-1], middle[..., 2:]),
        torch.minimum(torch.minimum(high[..., :-2], high[..., 1:-1]), high[..., 2:]),
    )


def _median3(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


def _sort3(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    inner = torch.minimum(high, c)
    return torch.minimum(low, inner), torch.maximum(low, inner), torch.maximum(high, c)
