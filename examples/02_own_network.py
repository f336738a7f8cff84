"""A network of your own in place of nasrecon's: anything with four attributes and a call on a ``StereoBatch``.

The network here is a plane sweep on image colours in 40 lines; wrap yours in the same way.

python examples/02_own_network.py [OUT]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import nasrecon as nr


class ColourSweep:
    """Choose the plane on which the colours of the sources differ least from the reference's."""

    name = "colour-sweep"
    planes = 48  # plane i lies at min_depth * planes / i
    size_multiple = 4  # H and W of a batch are multiples of it
    min_side = 32

    def __call__(self, batch: nr.StereoBatch) -> nr.Prediction:
        B, _, H, W = batch.ref_image.shape
        y, x = torch.meshgrid(torch.arange(H).float(), torch.arange(W).float(), indexing="ij")
        pixels = torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1)  # integer pixel centres
        labels = torch.arange(1, self.planes)
        costs = []
        for label in labels:
            depth = batch.min_depth * self.planes / label  # (B,)
            points = torch.linalg.inv(batch.ref_K) @ pixels * depth[:, None, None]
            differences = [self._difference(batch, s, points) for s in range(batch.src_images.shape[1])]
            costs.append(F.avg_pool2d(torch.stack(differences).mean(dim=0), 9, 1, 4))
        cost, best = torch.cat(costs, dim=1).min(dim=1)
        depth = batch.min_depth[:, None, None] * self.planes / labels[best]
        normal = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(B, 3, H, W)
        return nr.Prediction(
            depth_initial=depth,
            depth=depth,
            normal=normal,
            refined_depth=depth,
            refined_normal=normal,
            confidence=torch.exp(-4 * cost),
            sigma=0.05 * depth,
        )

    @staticmethod
    def _difference(batch: nr.StereoBatch, s: int, points: torch.Tensor) -> torch.Tensor:
        """Return the absolute colour difference (B, 1, H, W) to source s on the plane of the points (B, 3, H*W)."""
        _, _, H, W = batch.ref_image.shape
        R, t = batch.src_from_ref[:, s, :3, :3], batch.src_from_ref[:, s, :3, 3:]
        in_src = batch.src_K[:, s] @ (R @ points + t)
        xy = in_src[:, :2] / in_src[:, 2:].clamp_min(1e-6)
        grid = (2 * xy + 1) / torch.tensor([W, H]).view(1, 2, 1) - 1
        warped = F.grid_sample(
            batch.src_images[:, s], grid.mT.reshape(-1, H, W, 2), align_corners=False, padding_mode="border"
        )
        return (warped - batch.ref_image).abs().mean(dim=1, keepdim=True)


if __name__ == "__main__":
    room = Path(__file__).parent / "room"
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "nasrecon_out")
    scene = nr.prepare_scene(room / "images", room / "sparse" / "0", nr.PrepareOptions(every=4, sources=2))
    run = nr.estimate_to_folder(scene, ColourSweep(), out, nr.EstimateOptions(max_side=160))
    for e in run.results:
        near, far = e.depth[e.depth > 0].min(), e.depth.max()
        print(f"{e.view.name}: depth {near:.2f} to {far:.2f}, confidence {e.confidence.mean():.2f}")
