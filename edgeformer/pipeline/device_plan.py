"""What finishing a bundle on this machine comes to, settled before anything is built: versions, files, limits."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from edgeformer.bundle import Manifest, open_bundle
from edgeformer.bundle.details import CandidatesDetails, EngineDetails
from edgeformer.bundle.files import PLUGIN_GRAPH, TYPED
from edgeformer.bundle.signature import is_trusted
from edgeformer.engine.jetson import jetson_facts
from edgeformer.engine.limits import check_limits
from edgeformer.engine.targets import Target, can_build, get_target
from edgeformer.errors import InputError
from edgeformer.machine.backends import ImportedBackend, probe_backend, require_backend
from edgeformer.machine.board import Memory, power_mode, read_memory
from edgeformer.machine.devices import GpuSurvey, find_gpus
from edgeformer.machine.engine_code import library_to_open
from edgeformer.machine.jetpack import Release, find_release
from edgeformer.machine.plugin_library import PluginLibrary, read_plugin_library, require_plugin_library
from edgeformer.ops.library_files import LIBRARY_NAME, rtx_alias_of
from edgeformer.records.autotune import CandidateRecord
from edgeformer.records.device import DeviceRecord
from edgeformer.records.engine import EngineSpec
from edgeformer.records.terms import Precision

__all__ = ["FinishPlan", "make_finish_plan"]


@dataclass(frozen=True)
class FinishPlan:
    """All that the stages of finishing need to know.

    Attributes:
        bundle: its folder.
        manifest: as it was found.
        trusted: what came with the bundle may run.
        spec: what the engine is built with.
        candidate: what it is built from, where that is another form of the model than the bundle is of.
        target: the machine that it is for.
        backend: the TensorRT that Python imports here.
        library: the plugin library, where the engine needs one beside it or in it.
        survey: the GPUs here.
        release: the Jetson Linux here; ``None`` on what is no Jetson.
        memory: of this machine, where it tells.
        machine: what the manifest keeps of all that.
        faults: what is not as it should be here, and does not stop the build, each with its remedy.
    """

    bundle: Path
    manifest: Manifest
    trusted: bool
    spec: EngineSpec
    candidate: CandidateRecord | None
    target: Target
    backend: ImportedBackend
    library: PluginLibrary | None
    survey: GpuSurvey
    release: Release | None
    memory: Memory | None
    machine: DeviceRecord
    faults: tuple[str, ...]

    @property
    def graph(self) -> Path:
        """The file that TensorRT's parser is given."""
        if self.candidate is not None and self.candidate.file is not None:
            return self.bundle / self.candidate.file
        plugin = self.spec.use_plugin and self.spec.op_nodes > 0
        return self.bundle / (PLUGIN_GRAPH if plugin else TYPED)

    @property
    def library_beside(self) -> Path | None:
        """The plugin library that has to be loaded with the engine; ``None`` where it needs none, or has it inside."""
        return None if self.library is None or self.spec.embed_plugin else self.library.path

    @property
    def precision(self) -> Precision:
        """Of the engine."""
        return self.manifest.precision if self.candidate is None else self.candidate.precision

    @property
    def tuning_memory_bytes(self) -> int | None:
        """Limit of the memory in which TensorRT tries kernels out: on a board it is what programs have, too."""
        if self.release is None or self.memory is None:
            return None
        return self.memory.available * 3 // 4


def make_finish_plan(
    bundle: str | os.PathLike[str],
    *,
    trust_bundle: bool = False,
    key: str | os.PathLike[str] | None = None,
    workspace_bytes: int | None = None,
) -> FinishPlan:
    """Check the bundle and this machine.

    Args:
        bundle: folder of the bundle; every file is checked against its hash first.
        trust_bundle: as for `edgeformer.pipeline.finishing.finish_bundle`.
        key: as there.
        workspace_bytes: as there.

    Raises:
        InputError: no bundle, a damaged one, one that was made by a version which left out what is needed, or code in
            it that would have to run and is not trusted.
        EnvironmentFault: this machine has not the GPU, the TensorRT or the plugin library that is needed.
    """
    folder = Path(bundle).resolve()
    manifest = open_bundle(folder)
    named = None if key is None else Path(key)
    trusted = is_trusted(folder, trust_bundle=trust_bundle, key=named)
    check_limits(workspace_bytes, None)
    details = manifest.details(EngineDetails)
    if details is None or details.spec is None:
        raise InputError(
            "EF930",
            f"{bundle} does not say what its engine is built with (it was made by edgeformer {manifest.edgeformer}): "
            "build it again with this edgeformer, and finish that one here",
        )
    spec = details.spec
    if workspace_bytes is not None:
        spec = spec.model_copy(update={"workspace_bytes": workspace_bytes})
    target = _target(manifest)
    can_build(target, raise_error=True)
    backend = probe_backend(require_backend(target.flavour, target.tensorrt_minimum, target.tensorrt_below))
    backend.require(target.tensorrt_minimum, target.tensorrt_below)
    survey, release, memory = find_gpus(), find_release(), read_memory()
    facts = () if release is None else jetson_facts(release, survey)
    return FinishPlan(
        bundle=folder,
        manifest=manifest,
        trusted=trusted,
        spec=spec,
        candidate=_chosen(manifest, details),
        target=target,
        backend=backend,
        library=_library(folder, manifest, spec, target, trust_bundle, named),
        survey=survey,
        release=release,
        memory=memory,
        machine=_machine(backend, survey, release, memory),
        faults=tuple(f"{fact.name}: {fact.detail}: {fact.remedy}" for fact in facts if fact.status != "ok"),
    )


def _chosen(manifest: Manifest, engine: EngineDetails) -> CandidateRecord | None:
    """What the bundle's engine was built from when it was tuned, if that is not the bundle's own form."""
    if engine.candidate is None:
        return None
    listed = manifest.details(CandidatesDetails)
    for one in () if listed is None else listed.candidates:
        # A name that the manifest lists is a plain one, and the file's hash was checked.
        if one.name == engine.candidate and one.file in manifest.files:
            return one
    raise InputError(
        "EF937",
        f"the engine of {manifest.model.name} was built from the candidate {engine.candidate!r}, and the bundle has no "
        "such graph any more: build the bundle again",
    )


def _target(manifest: Manifest) -> Target:
    target = get_target(manifest.target.name)
    if target.sms != manifest.target.sms or target.flavour != manifest.target.flavour:
        raise InputError(
            "EF931",
            f"the bundle is for {manifest.target.name} with SM {', '.join(map(str, manifest.target.sms))} and "
            f"{manifest.target.flavour}, and here that is SM {', '.join(map(str, target.sms))} and {target.flavour}: "
            "build it for this machine",
        )
    return target


def _library(
    bundle: Path, manifest: Manifest, spec: EngineSpec, target: Target, trust_bundle: bool, key: Path | None
) -> PluginLibrary | None:
    """The plugin library: the bundle's, where it is for this machine, else this installation's."""
    if not spec.use_plugin or not spec.op_nodes:
        return None
    wanted = bundle / LIBRARY_NAME
    if LIBRARY_NAME not in manifest.files or read_plugin_library(wanted).metadata.cpu != platform.machine():
        library = require_plugin_library(target.sm)
    else:
        path = library_to_open(wanted, trust_bundle=trust_bundle, key=key)
        library = read_plugin_library(path)
        alias = rtx_alias_of(path)
        if path.parent == bundle and alias.is_file() and alias.name not in manifest.files:
            raise InputError(
                "EF672", f"{alias} lies in the bundle and its manifest does not list it: take it out of the folder"
            )
    for sm in target.sms:
        library.require_sm(sm)
    return library


def _machine(
    backend: ImportedBackend, survey: GpuSurvey, release: Release | None, memory: Memory | None
) -> DeviceRecord:
    gpu = survey.gpus[0] if survey.gpus else None
    jetpack = None if release is None else release.jetpack
    return DeviceRecord(
        gpu=None if gpu is None else gpu.name,
        sm=None if gpu is None else gpu.sm,
        tensorrt=backend.version,
        cuda=survey.cuda_version,
        l4t=None if release is None else release.l4t,
        jetpack=None if jetpack is None else jetpack.name,
        power_mode=None if release is None else power_mode(),
        memory_bytes=None if memory is None else memory.total,
        free_bytes=None if memory is None else memory.available,
        swap_bytes=None if memory is None else memory.swap,
    )
