"""What a request refuses before anything is opened, and that every option reaches the command line and Python alike."""

from __future__ import annotations

import inspect
from typing import Any

import click
import pytest

import edgeformer as ef
from edgeformer.cli.build import command as build_command
from edgeformer.cli.export import command as export_command
from edgeformer.errors import InputError
from edgeformer.pipeline import BuildRequest, ExportRequest
from edgeformer.pipeline.options import Option, fields_of
from edgeformer.records.terms import Precision
from tests.raising import raises

BUILD = {"model": "biformer_nano", "output": "out", "target": "rtx-40"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "fp4"}, ["'fp4'", "fp32, fp16, bf16, int8, int8-weights, fp8, int4-weights"]),
        ({"max_drop": -0.5}, ["-0.5", "at least 0"]),
        ({"max_drop": float("nan")}, ["nan", "at least 0"]),
        ({"precision": "int8"}, ["INT8", "--data", "int8-weights"]),
        ({"precision": "fp8"}, ["FP8", "--data"]),
        ({"precision": "fp8", "data": "x", "quantize_attention": True}, ["--quantize-attention", "fp8"]),
        ({"precision": "int8-weights", "quantize_attention": True}, ["--quantize-attention", "int8-weights"]),
        ({"precision": "int8-weights", "int4_block": 32}, ["--int4-block", "int8-weights", "int4-weights"]),
        ({"int4_block": 32}, ["--int4-block", "fp16"]),
        ({"precision": "int4-weights", "int4_block": 48}, ["int4_block 48", "32, 64, 128"]),
        ({"precision": "int8", "data": "x", "calibration_images": 0}, ["0", "at least 1"]),
        ({"recipe": "default"}, ["recipe", "fp16"]),
        ({"precision": "bf16", "quantize_attention": True}, ["--quantize-attention", "bf16", "--precision int8"]),
        ({"embed_plugin": True, "use_plugin": False}, ["--embed-plugin", "--no-plugin"]),
        ({"workspace_bytes": 0}, ["0"]),
        ({"max_aux_streams": -1}, ["-1"]),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        BuildRequest(**{**BUILD, **options})
    assert [word for word in words if word not in str(refused.value)] == []


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_weights_alone_need_no_images_and_take_a_recipe(precision: Precision) -> None:
    request = BuildRequest("biformer_nano", output="out", target="rtx-40", precision=precision, recipe="default")
    assert request.data is None


def test_a_block_is_for_int4() -> None:
    request = BuildRequest("biformer_nano", output="out", target="rtx-40", precision="int4-weights", int4_block=128)
    assert request.int4_block == 128


def test_an_export_of_no_image_is_refused() -> None:
    with raises("EF101", "static_batch 0", "at least 1"):
        ExportRequest(model="biformer_nano", output="x.onnx", static_batch=0)


@pytest.mark.parametrize(
    ("command", "request_type", "function"),
    [(build_command, BuildRequest, ef.build), (export_command, ExportRequest, ef.export_model)],
)
def test_every_option_is_on_the_command_line_and_in_python(
    command: click.Command, request_type: type, function: Any
) -> None:
    options = {parameter.name: parameter for parameter in command.params if isinstance(parameter, click.Option)}
    parameters = inspect.signature(function).parameters
    for name, default, about in fields_of(request_type):
        assert name in parameters
        assert parameters[name].default in (default, inspect.Parameter.empty)
        if isinstance(about, Option):
            assert name in options
            assert (options[name].help or "").startswith(about.help)
