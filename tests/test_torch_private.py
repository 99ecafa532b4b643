"""What is used of torch and is not public is as it was; another version that changes it is told here."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerlock import torch_private

ROOT = Path(__file__).parent.parent
SCHEMAS = {
    "mkldnn::_linear_pointwise": "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, "
    "str? algorithm) -> Tensor Y",
    "mkldnn::_reorder_linear_weight": "(Tensor self, int? batch_size=None) -> Tensor Y",
    "mkldnn::_is_mkldnn_bf16_supported": "() -> bool _0",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "(Tensor query, Tensor key, Tensor value, float dropout_p=0., "
    "bool is_causal=False, *, Tensor? attn_mask=None, float? scale=None) -> (Tensor output, Tensor logsumexp)",
    "aten::_foreach_lerp_": "(Tensor(a!)[] self, Tensor[] tensors1, Tensor[] weights) -> ()",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_operation_takes_and_gives_what_it_did(name: str) -> None:
    library, _, operation = name.partition("::")
    packet = getattr(getattr(torch.ops, library), operation)
    found = str(getattr(packet, packet.overloads()[0])._schema)
    assert re.sub(r"^[\w:.]+", "", found) == SCHEMAS[name]


def test_attention_and_its_sums_are_those_of_the_definition() -> None:
    q, k, v = torch.randn(3, 2, 2, 5, 8, generator=torch.Generator().manual_seed(0)).unbind()
    out, log_sum = torch_private.attention_and_sums(q, k, v)
    scores = q @ k.transpose(-2, -1) * 8**-0.5
    assert torch_private.has_attention_sums()
    torch.testing.assert_close(out, scores.softmax(-1) @ v)
    torch.testing.assert_close(log_sum, scores.logsumexp(-1))


@pytest.mark.skipif(not torch_private.takes_bfloat16(), reason="oneDNN does not multiply bfloat16 on this CPU")
@pytest.mark.parametrize("gelu", [None, "exact", "tanh"])
def test_a_product_with_a_weight_laid_out_is_the_product(gelu: str | None) -> None:
    x, weight, bias = torch.randn(4, 32).bfloat16(), torch.randn(48, 32).bfloat16(), torch.randn(48).bfloat16()
    wanted = F.linear(x.float(), weight.float(), bias.float())
    if gelu:
        wanted = F.gelu(wanted, approximate="tanh" if gelu == "tanh" else "none")
    found = torch_private.linear(x, torch_private.laid_out(weight, 4), bias, gelu)
    torch.testing.assert_close(found.float(), wanted, rtol=2**-7, atol=2e-2)


def test_tensors_move_towards_others_with_and_without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        if not there:
            monkeypatch.delattr(torch, "_foreach_lerp_")
        tensors, others = [torch.zeros(3), torch.ones(2)], [torch.ones(3), torch.zeros(2)]
        torch_private.lerp(tensors, others, 0.25)
        assert [tensor.tolist() for tensor in tensors] == [[0.25] * 3, [0.75] * 2]


def test_writing_to_a_tensor_is_counted() -> None:
    tensor = torch.zeros(2)
    before = torch_private.version_of(tensor)
    tensor.add_(1)
    assert torch_private.version_of(tensor) == before + 1


def test_a_module_is_known_to_be_compiled_and_variants_are_allowed() -> None:
    module = nn.Linear(2, 2)
    assert not torch_private.is_compiled(module)
    module.compile(backend="eager")
    assert torch_private.is_compiled(module)
    limit = torch._dynamo.config.recompile_limit
    torch_private.allow_variants(limit + 1)
    assert torch._dynamo.config.recompile_limit == limit + 1
    torch._dynamo.config.recompile_limit = limit


def test_what_is_in_force_in_a_thread_is_seen() -> None:
    assert not torch_private.bound_to_this_thread()
    with torch.device("meta"):
        assert torch_private.bound_to_this_thread()
    with torch.autocast("cpu"):
        assert torch_private.bound_to_this_thread()
    with torch.profiler.profile():
        assert torch_private.bound_to_this_thread()
    assert torch.func.vmap(lambda x: x * torch_private.bound_to_this_thread())(torch.ones(2)).tolist() == [1.0, 1.0]


def test_nothing_private_of_torch_is_used_elsewhere() -> None:
    """Its names with an underscore, its operations below the public ones; `_apply` is overridden, not called."""
    inner = ("_version", "_compiled_call_impl", "_foreach_lerp_")
    elsewhere = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            imported = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            private = re.match(r"torch\.(.*\.)?_", name) or name.startswith("torch.ops.") or name.endswith(inner)
            private = private or (imported.startswith("torch") and any(each.startswith("_") for each in names))
            if private and path.name != "torch_private.py":
                elsewhere.append(f"{path.name}: {name or imported}")
    assert not elsewhere


def test_torch_is_pinned_to_versions_that_this_was_run_with() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (pin,) = [each for each in wanted if each.startswith("torch>=")]
    tested = re.search(r"^torch==(\d+)\.(\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert tested is not None
    assert pin.endswith(f",<{tested[1]}.{int(tested[2]) + 1}")
