"""The page with several bundles side by side: the same figures in the same rows, differences marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeformer.bundle.details import EngineDetails
from edgeformer.bundle.manifest import Manifest, TensorRecord
from edgeformer.report import content
from edgeformer.report.page import Subject, environment

__all__ = ["ComparedRow", "compared_groups", "comparison_page"]


@dataclass(frozen=True)
class ComparedRow:
    """A figure of each bundle.

    Attributes:
        name: what it is.
        texts: it, bundle by bundle; empty where a bundle has none.
        differs: whether they are not all the same.
        best: positions of the better ones, where one is better.
        code: whether the texts are hashes or the like.
    """

    name: str
    texts: tuple[str, ...]
    differs: bool
    best: frozenset[int] = frozenset()
    code: bool = False


def comparison_page(subjects: Sequence[Subject]) -> str:
    """The page.

    Raises:
        EnvironmentFault: jinja2 is not installed.
    """
    manifests = [subject.manifest for subject in subjects]
    return (
        environment()
        .get_template("comparison.html")
        .render(
            subjects=subjects,
            hashes=" ".join(subject.sha256 for subject in subjects),
            title=" · ".join(subject.name for subject in subjects),
            verdicts=[content.verdict_of(manifest) for manifest in manifests],
            groups=compared_groups(manifests),
        )
    )


def compared_groups(manifests: Sequence[Manifest]) -> list[tuple[str, list[ComparedRow]]]:
    """The rows by group, in the order of the page; a group without rows is left out."""
    groups = [
        ("Key figures", _key_rows(manifests)),
        ("Stages", _rows(manifests, _stages)),
        (
            "SNR part by part",
            _rows(manifests, lambda manifest: {row.name: row.snr for row in content.block_rows(manifest)}),
        ),
        ("What they are", _rows(manifests, _identity)),
        ("Versions", _rows(manifests, _versions)),
        ("Files, SHA-256", _rows(manifests, _hashes, code=True)),
    ]
    return [(name, rows) for name, rows in groups if rows]


def _key_rows(manifests: Sequence[Manifest]) -> list[ComparedRow]:
    tables = [{figure.name: figure for figure in content.key_figures(manifest)} for manifest in manifests]
    rows = []
    for name in dict.fromkeys(name for table in tables for name in table):
        figures = [table.get(name) for table in tables]
        texts = tuple("" if figure is None else figure.text for figure in figures)
        differs = len(set(texts)) > 1
        rows.append(ComparedRow(name, texts, differs, _best(figures) if differs else frozenset()))
    return rows


def _best(figures: Sequence[content.KeyFigure | None]) -> frozenset[int]:
    """Positions of the best values, where all have one and it is known which is the better."""
    known = [figure for figure in figures if figure is not None and figure.value is not None]
    if len(known) < len(figures) or known[0].better is None:
        return frozenset()
    values = [figure.value or 0.0 for figure in known]
    best = max(values) if known[0].better == "higher" else min(values)
    return frozenset(position for position, value in enumerate(values) if value == best)


def _rows(
    manifests: Sequence[Manifest], table: Callable[[Manifest], dict[str, str]], *, code: bool = False
) -> list[ComparedRow]:
    tables = [table(manifest) for manifest in manifests]
    return [
        ComparedRow(name, texts, len(set(texts)) > 1, code=code)
        for name in dict.fromkeys(name for table in tables for name in table)
        for texts in [tuple(table.get(name, "") for table in tables)]
    ]


def _stages(manifest: Manifest) -> dict[str, str]:
    return {stage.name: f"{stage.verdict}: {stage.gate or stage.note or ''}".rstrip(": ") for stage in manifest.stages}


def _identity(manifest: Manifest) -> dict[str, str]:
    model = manifest.model
    batch = "fixed" if manifest.batch is None else " : ".join(map(str, manifest.batch))
    return {
        "model": model.name,
        "weights": (model.checkpoint_sha256 or model.sha256 or model.weights or "")[:16],
        "precision": manifest.precision.upper(),
        "target": manifest.target.name,
        "batch": batch,
        **{f"input {one.name}": _tensor(one) for one in manifest.inputs},
        **{f"output {one.name}": _tensor(one) for one in manifest.outputs},
    }


def _tensor(tensor: TensorRecord) -> str:
    return f"{tensor.dtype} [{', '.join(map(str, tensor.shape))}]"


def _versions(manifest: Manifest) -> dict[str, str]:
    engine = manifest.details(EngineDetails)
    built = None if engine is None else engine.report
    tensorrt: dict[str, str] = {} if built is None else {built.flavour: built.tensorrt_version}
    return {"edgeformer": manifest.edgeformer, "made": manifest.created, **manifest.libraries, **tensorrt}


def _hashes(manifest: Manifest) -> dict[str, str]:
    return {name: record.sha256[:16] for name, record in manifest.files.items()}
