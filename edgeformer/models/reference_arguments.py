"""From the constructor arguments of the reference implementation to a configuration. Imports no torch.

The reference is github.com/rayleizhu/BiFormer, whose users have these arguments in their configuration files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from edgeformer.errors import InputError
from edgeformer.models.config import BiFormerConfig

__all__ = ["REFERENCE_KINDS", "config_from_reference"]

# The reference's defaults for everything that decides the output: they fill in what a configuration leaves out.
_BIFORMER_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "depth": (3, 4, 8, 3),
        "in_chans": 3,
        "num_classes": 1000,
        "embed_dim": (64, 128, 320, 512),
        "head_dim": 64,
        "qk_scale": None,
        "representation_size": None,
        "n_win": 7,
        "kv_downsample_mode": "ada_avgpool",
        "kv_per_wins": (2, 2, -1, -1),
        "kv_downsample_kernels": (4, 2, 1, 1),
        "kv_downsample_ratios": (4, 2, 1, 1),
        "topks": (8, 8, -1, -1),
        "side_dwconv": 5,
        "layer_scale_init_value": -1,
        "qk_dims": (None, None, None, None),
        "param_routing": False,
        "diff_routing": False,
        "soft_routing": False,
        "pre_norm": True,
        "pe": None,
        "pe_stages": (0,),
        "before_attn_dwconv": 3,
        "auto_pad": False,
        "mlp_ratios": (4, 4, 4, 4),
        "param_attention": "qkvo",
        "mlp_dwconv": False,
    }
)
_STL_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "in_chans": 3,
        "num_classes": 1000,
        "depth": (2, 2, 6, 2),
        "embed_dim": (96, 192, 384, 768),
        "head_dim": 32,
        "mlp_ratios": (4, 4, 4, 4),
        "norm_layer": "LayerNorm2d",
        "pre_head_norm_layer": None,
        "n_wins": (7, 7, 7, 7),
        "topks": (1, 4, 16, -2),
        "side_dwconv": 5,
    }
)
# No effect on a trained model's output: regularization, memory saving, frozen statistics.
_TRAINING_ONLY = ("drop_path_rate", "drop_rate", "use_checkpoint_stages")
_TRAINING_ONLY_MM = (*_TRAINING_ONLY, "norm_eval", "disable_bn_grad")
# The reference's STL constructors take qk_scale and never use it.
_TRAINING_ONLY_STL = (*_TRAINING_ONLY, "qk_scale")

_NORM_LAYERS = {"BatchNorm2d": "batch", "LayerNorm2d": "layer"}

_WAY_OUT = (
    "Export that model to ONNX with the reference's own code and give edgeformer the .onnx: blocks that cannot be "
    "fused stay as they are"
)


def _biformer(arguments: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Fields of the configuration for "BiFormer"; values without a counterpart are added to ``problems``."""
    routing_stages = [stage for stage, topk in enumerate(_four(arguments["topks"])) if _positive(topk)]
    mode = arguments["kv_downsample_mode"]
    ratios = _four(arguments["kv_downsample_ratios"])
    pools = mode in ("avgpool", "maxpool") and any(_positive(ratios[stage], 1) for stage in routing_stages)
    if routing_stages and (pools or mode not in ("identity", "avgpool", "maxpool")):
        problems.append(f"kv_downsample_mode is {mode!r}; only 'identity' (keys and values are not pooled)")
    for name in ("param_routing", "diff_routing", "soft_routing"):
        if arguments[name] and routing_stages:
            problems.append(f"{name} is {arguments[name]!r}; only False (hard routing without weights)")
    if arguments["pe"] not in (None, "none"):
        problems.append(f"pe is {arguments['pe']!r}; only None, as in the reference itself")
    if arguments["representation_size"]:
        problems.append(f"representation_size is {arguments['representation_size']!r}; only None")
    if arguments["param_attention"] not in ("qkvo", "qkv"):
        problems.append(f"param_attention is {arguments['param_attention']!r}; only 'qkvo' or 'qkv'")
    dims, qk_dims = _four(arguments["embed_dim"]), _four(arguments["qk_dims"])
    return {
        "depths": arguments["depth"],
        "dims": arguments["embed_dim"],
        "topks": arguments["topks"],
        "regions": arguments["n_win"],
        "qk_dims": tuple(dim if qk_dim is None else qk_dim for dim, qk_dim in zip(dims, qk_dims, strict=True)),
        "head_dim": arguments["head_dim"],
        "mlp_ratios": arguments["mlp_ratios"],
        "qk_scale": arguments["qk_scale"] or None,
        "in_channels": arguments["in_chans"],
        "num_classes": arguments["num_classes"],
        "auto_pad": arguments["auto_pad"],
        "lepe_kernel": _not_negative(arguments["side_dwconv"]),
        "pos_embed_kernel": _not_negative(arguments["before_attn_dwconv"]),
        "mlp_dwconv": arguments["mlp_dwconv"],
        "layer_scale": arguments["layer_scale_init_value"],
        "pre_norm": arguments["pre_norm"],
        "output_projection": arguments["param_attention"] != "qkv",
    }


def _backbone(arguments: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The same for "BiFormer_mm": a BiFormer without head and norm."""
    if arguments["pretrained"] is not None:
        problems.append(f"pretrained is {arguments['pretrained']!r}; only None: weights come from load_checkpoint")
    return _biformer(arguments, problems) | {"dense": True, "num_classes": 0}


def _stl(arguments: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The same for "BiFormerSTL"."""
    norms: dict[str, str | None] = {}
    for name in ("norm_layer", "pre_head_norm_layer"):
        layer = arguments[name]
        # The reference takes the class; JSON and YAML can only name it.
        label = layer.rpartition(".")[2] if isinstance(layer, str) else getattr(layer, "__name__", repr(layer))
        if name == "pre_head_norm_layer" and layer is None:
            norms[name] = None
        elif label in _NORM_LAYERS:
            norms[name] = _NORM_LAYERS[label]
        else:
            problems.append(f"{name} is {layer!r}; only {' or '.join(_NORM_LAYERS)}")
            norms[name] = "batch"
    return {
        "layout": "stl",
        "depths": arguments["depth"],
        "dims": arguments["embed_dim"],
        "topks": arguments["topks"],
        "regions": arguments["n_wins"],
        "head_dim": arguments["head_dim"],
        "mlp_ratios": arguments["mlp_ratios"],
        "in_channels": arguments["in_chans"],
        "num_classes": arguments["num_classes"],
        "lepe_kernel": _not_negative(arguments["side_dwconv"]),
        "pos_embed_kernel": 0,
        "norm": norms["norm_layer"],
        "head_norm": norms["pre_head_norm_layer"],
    }


def _stl_nchw(arguments: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The same for "nchwBiFormerSTL"."""
    return _stl(arguments, problems) | {"layout": "stl_nchw"}


_Converter = Callable[[Mapping[str, Any], list[str]], dict[str, Any]]
_KINDS: Mapping[str, tuple[Mapping[str, Any], tuple[str, ...], _Converter]] = MappingProxyType(
    {
        "BiFormer": (_BIFORMER_DEFAULTS, _TRAINING_ONLY, _biformer),
        "BiFormer_mm": ({**_BIFORMER_DEFAULTS, "pretrained": None}, _TRAINING_ONLY_MM, _backbone),
        "BiFormerSTL": (_STL_DEFAULTS, _TRAINING_ONLY_STL, _stl),
        "nchwBiFormerSTL": (_STL_DEFAULTS, _TRAINING_ONLY_STL, _stl_nchw),
    }
)
REFERENCE_KINDS = tuple(_KINDS)
"""Classes of the reference implementation that can be built."""


def config_from_reference(kind: str, arguments: Mapping[str, Any]) -> BiFormerConfig:
    """The configuration that gives the same model as the reference's class ``kind`` with these arguments.

    Args:
        kind: the class's name; a remark in parentheses after it is allowed.
        arguments: keyword arguments of its constructor. Those that only matter in training have no effect.

    Raises:
        InputError: no such class or argument, or a value without a counterpart; one message lists them all.
    """
    name = kind.partition("(")[0].strip()
    if name not in _KINDS:
        raise InputError("EF201", f"no reference class is called {name!r}; choose one of {', '.join(REFERENCE_KINDS)}")
    defaults, training_only, convert = _KINDS[name]
    unknown = sorted(arguments.keys() - defaults.keys() - set(training_only))
    problems = [f"{argument} is not an argument of the reference's {name}" for argument in unknown]
    known = {argument: value for argument, value in arguments.items() if argument in defaults}
    fields = convert({**defaults, **known}, problems)
    if problems:
        raise InputError(
            "EF203",
            f"edgeformer cannot build this {name}:\n" + "\n".join(f"  - {line}" for line in problems) + f"\n{_WAY_OUT}",
        )
    return BiFormerConfig(**fields)


def _four(value: Any) -> tuple[Any, ...]:
    """Always four entries; the configuration reports a wrong number of them."""
    if isinstance(value, (list, tuple)):
        return (*value, None, None, None, None)[:4]
    return (value,) * 4


def _positive(value: Any, limit: float = 0) -> bool:
    return isinstance(value, (int, float)) and value > limit


def _not_negative(kernel: Any) -> Any:
    """The reference turns a convolution off with any number that is not positive."""
    return 0 if isinstance(kernel, int) and kernel <= 0 else kernel
