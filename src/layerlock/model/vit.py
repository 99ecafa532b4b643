"""The video vision transformer, whole: patch projection, positions, blocks.

Notable choices (LayerLock section 3.1, after 4DS); options of `ViTConfig` make the blocks VideoMAE's or V-JEPA's:
- pre-norm blocks, LayerNorm eps 1e-6, biases everywhere, tanh GELU, no dropout, no class token, no final norm;
- 3D RoPE acts on the output of a block's *first norm*, over the full width, so that q, k and v are all rotated;
- visible patches are gathered before they are projected; nothing is computed for a masked token;
- weights are float32 and cast at use, those of a frozen block all at once; LayerNorm and softmax are
  computed in float32 (`attend` says where the softmax is rounded).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from layerlock import torch_private
from layerlock.model.attention import attend
from layerlock.model.patches import Grid
from layerlock.model.position import Rotation, fixed_table, rotate, rotation_table

Position = Literal["rope", "rope-attention", "sincos", "sincos-1d", "learned", "none"]
GELU = Literal["tanh", "exact"]
FirstWeights = Literal["xavier", "normal"]


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Shape of a backbone.

    `position`: `rope` after the first norm, `rope-attention` on q and k, or an added table: `sincos` in 3D,
    `sincos-1d` over the number of the token, `learned`. VideoMAE is `sincos-1d`, exact GELU, eps 1e-12, no key bias;
    V-JEPA is exact GELU and a final norm.
    """

    width: int = 768
    """dimension of a token"""
    depth: int = 12
    """blocks, the decoder's among them"""
    mlp: int = 3072
    """width of the hidden layer"""
    heads: int = 12
    """attention heads"""
    patch: Grid = (2, 16, 16)
    """frames, rows and columns of a patch"""
    position: Position = "rope"
    """position encoding"""
    rope_fractions: tuple[float, float, float] = (0.10, 0.25, 0.25)
    """fractions of the channels that are rotated by time, by height and by width"""
    rope_wavelength: float = 10_000.0
    """wavelength of the slowest rotation, in tokens"""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """subtracted from red, green and blue in [0, 1] before the projection; the LayerLock paper subtracts nothing"""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """standard deviation that divides red, green and blue after that"""
    gelu: GELU = "tanh"
    """GELU of the hidden layer: tanh approximation or exact"""
    norm_eps: float = 1e-6
    """added to the variance in every LayerNorm"""
    key_bias: bool = True
    """whether keys have a bias, as queries and values do"""
    final_norm: bool = False
    """LayerNorm after the last block"""

    def problems(self) -> list[str]:
        """What is wrong with these numbers, a line each."""
        found = [
            f"model.{n}: {getattr(self, n)} is not positive"
            for n in ("width", "depth", "mlp", "heads")
            if getattr(self, n) < 1
        ]
        if not found and self.width % self.heads:
            found.append(f"model.heads: {self.heads} heads do not divide a width of {self.width}")
        if any(f < 0 for f in self.rope_fractions) or sum(self.rope_fractions) > 1:
            found.append(f"model.rope_fractions: {self.rope_fractions} must be at least 0 each and at most 1 together")
        if any(value <= 0 for value in self.std):
            found.append(f"model.std: {self.std} must be positive")
        if self.norm_eps <= 0:
            found.append(f"model.norm_eps: {self.norm_eps} is not positive")
        return found

    @property
    def patch_values(self) -> int:
        """Numbers in one patch: t * h * w * 3."""
        return self.patch[0] * self.patch[1] * self.patch[2] * 3


class _Packed(NamedTuple):
    """A weight laid out for oneDNN, and what it was made of: one written to since is another."""

    layout: Tensor
    weight: Tensor
    version: int


class Dense(nn.Linear):
    """A linear layer that computes in the type of its input, whatever the type its weights are kept in."""

    _packed: _Packed | None = None

    def forward(self, x: Tensor, gelu: GELU | None = None) -> Tensor:
        """`x @ weight.T + bias` of `x` `[..., in]`, or GELU of that: `[..., out]`."""
        bias = self.whole_bias(x.dtype)
        if (layout := self._laid_out(x)) is not None:
            return torch_private.linear(x, layout, bias, gelu)
        y = F.linear(x, self.weight.to(x.dtype), bias)
        return y if gelu is None else F.gelu(y, approximate="tanh" if gelu == "tanh" else "none")

    def whole_bias(self, dtype: torch.dtype) -> Tensor | None:
        """The bias `[out]` in a type, None where there is none."""
        return None if self.bias is None else self.bias.to(dtype)

    def pack(self, rows: int) -> None:
        """Keeps a second copy of a bfloat16 weight on the CPU, laid out for products of about `rows` rows without
        gradients: oneDNN would do that at every call, and GELU costs no pass of its own then. No effect elsewhere.

        Writes through `weight.data` or numpy are not seen: call it again after them. Copies have to be packed again.
        """
        weight = self.weight
        counted = not weight.is_inference()  # else nothing would tell that it was written to
        if (
            counted
            and weight.device.type == "cpu"
            and weight.dtype == torch.bfloat16
            and torch_private.takes_bfloat16()
        ):
            self._packed = _Packed(torch_private.laid_out(weight, rows), weight, torch_private.version_of(weight))

    def _laid_out(self, x: Tensor) -> Tensor | None:
        kept = self._packed
        if kept is None or torch.is_grad_enabled() or x.dtype != torch.bfloat16 or torch.compiler.is_compiling():
            return None
        same = kept.weight is self.weight and kept.version == torch_private.version_of(self.weight)
        return kept.layout if same else None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}  # a layout can neither be copied nor saved

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self._packed = None  # moved or cast
        return super()._apply(fn, recurse)


class QueryKeyValue(Dense):
    """Queries, keys and values `[..., 3 D]` of `[..., D]`. Without `key_bias` its bias is queries' and values', 2 D."""

    def __init__(self, width: int, *, key_bias: bool = True) -> None:
        super().__init__(width, 3 * width)
        self.key_bias = key_bias
        if not key_bias:
            self.bias = nn.Parameter(torch.zeros(2 * width))

    def whole_bias(self, dtype: torch.dtype) -> Tensor | None:
        """With zeros for the keys where they have none."""
        bias = super().whole_bias(dtype)
        if self.key_bias or bias is None:
            return bias
        query, value = bias.chunk(2)
        return torch.cat([query, torch.zeros_like(query), value])


class Norm(nn.LayerNorm):
    """LayerNorm computed in float32, returned in the type of its input."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        # the CPU's kernel takes bfloat16 with weights of either type and computes in float32: no copy need be made
        y = x if x.device.type == "cpu" else x.float()
        weight, bias = (p if p.dtype == torch.float32 else p.to(y.dtype) for p in (self.weight, self.bias))
        return F.layer_norm(y, self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class Block(nn.Module):
    """`x + attention(norm(x))`, then `x + mlp(norm(x))`, on `[B, K, D]`."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.rotate_heads = config.position == "rope-attention"
        self.gelu = config.gelu
        self.norm1 = Norm(config.width, config.norm_eps)
        self.qkv = QueryKeyValue(config.width, key_bias=config.key_bias)
        self.proj = Dense(config.width, config.width)
        self.norm2 = Norm(config.width, config.norm_eps)
        self.fc1 = Dense(config.width, config.mlp)
        self.fc2 = Dense(config.mlp, config.width)

    def forward(self, x_bkd: Tensor, rotation: Rotation | None) -> Tensor:
        x_bkd = x_bkd + self.attention(x_bkd, rotation)
        y_bkd = self.norm2(x_bkd)
        return x_bkd + self.fc2(self.fc1(y_bkd, self.gelu))

    def attention(self, x_bkd: Tensor, rotation: Rotation | None) -> Tensor:
        """What attention adds to `x`."""
        y_bhkd = attend(*self.query_key_value(x_bkd, rotation))
        return self.proj(y_bhkd.transpose(1, 2).reshape(x_bkd.shape))

    def query_key_value(self, x_bkd: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """What attention is between, with positions: `[B, heads, K, D / heads]` each."""
        b, k, d = x_bkd.shape
        y_bkd = self.norm1(x_bkd)
        if rotation is not None and not self.rotate_heads:
            y_bkd = rotate(y_bkd, rotation)
        qkv = self.qkv(y_bkd).view(b, k, 3, self.heads, d // self.heads)
        q, key, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        if rotation is not None and self.rotate_heads:
            q, key = (rotate(part, rotation.per_head()) for part in (q, key))
        return q, key, v


class Blocks(nn.ModuleList):
    """Blocks of one shape, one after the other."""

    def run(
        self, x_bkd: Tensor, rotation: Rotation | None, first: int, last: int, *, recompute: bool = False
    ) -> Tensor:
        """Blocks `first` + 1 .. `last` (one-based). `recompute`: store no activations, run forward twice."""
        for block in self[first:last]:
            if recompute and torch.is_grad_enabled():
                x_bkd = checkpoint(block, x_bkd, rotation, use_reentrant=False, preserve_rng_state=False)
            else:
                x_bkd = block(x_bkd, rotation)
        return x_bkd


class ViT(nn.Module):
    """Patch projection, blocks and, where the config asks for it, a final norm, for clips of one token grid.

    `compute` is the type activations have (float32 or bfloat16). Tables of positions are derived, never saved.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, config: ViTConfig, grid: Grid) -> None:
        super().__init__()
        self.config, self.grid, self.compute = config, grid, torch.float32
        self.embed = Dense(config.patch_values, config.width)
        self.blocks = Blocks(Block(config) for _ in range(config.depth))
        self.norm = Norm(config.width, config.norm_eps) if config.final_norm else None
        if config.position == "learned":
            self.position = nn.Parameter(torch.zeros(self.tokens, config.width))
        else:
            table = fixed_table(config.position, grid, config.width)
            self.register_buffer(
                "position", None if table is None else table.to(self.embed.weight.device), persistent=False
            )
        plain = config.mean == (0.0, 0.0, 0.0) and config.std == (1.0, 1.0, 1.0)
        for name, values in (("mean", config.mean), ("std", config.std)):
            table = None if plain else torch.tensor(values, device=self.embed.weight.device)
            self.register_buffer(
                name, None if table is None else table.repeat(config.patch_values // 3), persistent=False
            )
        self._tables: dict[tuple[torch.device, torch.dtype], Rotation] = {}

    @property
    def tokens(self) -> int:
        """Tokens of a whole clip, N."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    def rotation(self, index_bk: Tensor | None = None) -> Rotation | None:
        """Rotation of all tokens (`[N, .]` tables) or of those named; None where positions are not rotations."""
        config = self.config
        if config.position not in ("rope", "rope-attention"):
            return None
        key = (self.embed.weight.device, self.compute)
        if key not in self._tables:
            width = config.width if config.position == "rope" else config.width // config.heads
            with torch.inference_mode(False):  # kept for later calls, which may train
                table = rotation_table(self.grid, width, config.rope_fractions, config.rope_wavelength)
                self._tables[key] = Rotation(table.cos.to(*key), table.sin.to(*key), table.pairs)
        table = self._tables[key]
        return table if index_bk is None else table.at(index_bk)

    def normalize(self, patches: Tensor) -> Tensor:
        """Patches `[..., P]`, uint8 or in [0, 1], as float32 in the units that the model reads and predicts."""
        x = patches.float().div_(255) if patches.dtype == torch.uint8 else patches.float()
        return x if self.mean is None or self.std is None else (x - self.mean).div_(self.std)

    def project(self, patches_bkp: Tensor, index_bk: Tensor | None = None) -> Tensor:
        """Tokens `[B, K, D]` of patches `[B, K, P]`, uint8 or in [0, 1], that stand at `index_bk`; of a whole clip
        without one.
        """
        x_bkd = self.embed(self.normalize(patches_bkp).to(self.compute))
        if self.position is None:
            return x_bkd
        position = self.position if index_bk is None else self.position[index_bk]
        return x_bkd + position.to(x_bkd.dtype)

    def run(
        self, x_bkd: Tensor, rotation: Rotation | None, first: int, last: int, *, recompute: bool = False
    ) -> Tensor:
        """Blocks `first` + 1 .. `last` (one-based) and nothing else: no final norm. `recompute`: as for `Blocks`."""
        return self.blocks.run(x_bkd, rotation, first, last, recompute=recompute)

    def norm_out(self, x_bkd: Tensor) -> Tensor:
        """The backbone's output from that of its last block: the final norm of it, or itself where there is none."""
        return x_bkd if self.norm is None else self.norm(x_bkd)

    def intermediates(self, patches_bnp: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Outputs `[B, N, D]` of the blocks `indices` (0: the projected tokens) for whole clips; runs no deeper than
        asked. The last block's comes with the final norm where there is one.
        """
        x, rotation, at = self.project(patches_bnp), self.rotation(), 0
        found: dict[int, Tensor] = {}
        for depth in sorted(set(indices)):
            x, at = self.run(x, rotation, at, depth), depth
            found[depth] = self.norm_out(x) if depth == self.config.depth else x
        return [found[depth] for depth in indices]


def compile_blocks(module: nn.Module) -> None:
    """Puts every block inside `module` that is not compiled yet through `torch.compile`.

    Blocks of one shape share what is compiled, wherever they stand: frozen or live, of a teacher or of its student.
    """
    torch_private.allow_variants(64)  # one code object serves all of them; none may fall back to eager
    for part in module.modules():
        if isinstance(part, Block) and not torch_private.is_compiled(part):
            part.compile()


@torch.no_grad()
def initialize(module: nn.Module, generator: torch.Generator, first: FirstWeights = "xavier") -> None:
    """Matrices, Xavier-uniform or `normal` with deviation 0.02 (V-JEPA); zero biases, unit norms; other parameters
    (positions, tokens) normal with deviation 0.02.

    What a block adds to its input is scaled at first: unscaled, attention over tokens that are still alike drowns each
    token in what is common to all. By 1/sqrt(2 L) for all L blocks (Radford et al., 2019), with `normal` by 1/sqrt(2 l)
    for the block number l (V-JEPA). Drawn on the CPU in the order of the modules, so the same on every device;
    parameters on meta are left alone.
    """

    def draw(parameter: Tensor, bound: float | None) -> None:
        if parameter.device.type != "meta":
            new = torch.empty(parameter.shape, device="cpu")
            parameter.copy_(
                new.normal_(0, 0.02, generator=generator)
                if bound is None
                else new.uniform_(-bound, bound, generator=generator)
            )

    for part in module.modules():
        if isinstance(part, nn.Linear):
            draw(part.weight, (6.0 / sum(part.weight.shape)) ** 0.5 if first == "xavier" else None)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif not isinstance(part, nn.LayerNorm):
            for parameter in part.parameters(recurse=False):
                draw(parameter, None)
    for blocks in (part for part in module.modules() if isinstance(part, Blocks)):
        for number, block in enumerate(blocks, 1):
            scale = (2 * (len(blocks) if first == "xavier" else number)) ** -0.5
            for name, weight in block.named_parameters():
                if name.endswith(("proj.weight", "fc2.weight")):
                    weight.mul_(scale)
