"""Checks that a file is the archive of one Docker image and nothing worse, before any daemon reads it.

Formats: the archive of `docker save` (`manifest.json`, Docker image specification 1.2), and beside it, from newer
daemons, an OCI image layout (`index.json`). Docker itself compares the bytes of each layer with its digest.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from kohakuriver.system.tar_headers import (
    DIRECTORY,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    BadArchive,
    Inflated,
    Source,
    Span,
    entries,
    shown,
)

__all__ = ["BadArchive", "Checked", "Limits", "check_archive"]
_SHA256 = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_NAME = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]{0,250}:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_NAME_KEYS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an image may be: what it unpacks to, its files, the files of the archive, its descriptions."""

    expanded_bytes: int
    entries: int = 5_000_000
    outer_entries: int = 10_000
    json_bytes: int = 8_000_000


@dataclass(slots=True)
class _Archive:
    """What stands where in the outer archive; links lead to other names in it."""

    file: BinaryIO
    limits: Limits
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def span(self, name: object) -> Span:
        """The bytes of a file in it; raises BadArchive when it has none of that name."""
        if not isinstance(name, str) or self.links.get(name, name) not in self.places:
            raise BadArchive(f"its manifest names {shown(str(name))}, which is not in it")
        start, size = self.places[self.links.get(name, name)]
        return Span(self.file, start, size)

    def json(self, name: object) -> Any:
        """The value of a JSON file in it, whose digest is right if it is named after that."""
        span = self.span(name)
        size = self.places[self.links.get(str(name), str(name))][1]
        if size > self.limits.json_bytes:
            raise BadArchive(f"{shown(str(name))} has {size} bytes")
        data, wanted = span.read(size), _SHA256.fullmatch(str(name))
        if wanted and hashlib.sha256(data).hexdigest() != wanted[1]:
            raise BadArchive(f"{shown(str(name))} is not what its name says")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as broken:
            raise BadArchive(f"{shown(str(name))} is no JSON: {broken}") from None


@dataclass(frozen=True, slots=True)
class Checked:
    """The one image in an archive: its name, the SHA-256 of its configuration (in hex), its labels."""

    image: str
    config_digest: str
    labels: Mapping[str, str]


def check_archive(path: Path, image: str | None, limits: Limits) -> Checked:
    """The image in the file, which must be this one (None: any) alone; blocking. Raises BadArchive, OSError."""
    with path.open("rb") as file:
        archive = _survey(file, path.stat().st_size, limits)
        if "manifest.json" not in archive.places:
            raise BadArchive("it has no manifest.json, so it is no image archive")
        named, config_name, layers = _manifest(archive, image)
        config = archive.json(config_name)
        diff_ids = _at(config, "rootfs", "diff_ids")
        if not isinstance(diff_ids, list) or len(diff_ids) != len(layers):
            raise BadArchive(f"its manifest names {len(layers)} layers, its configuration others")
        if "index.json" in archive.places:
            _check_index(archive, named, [config_name, *layers])
        _check_layers(archive, dict.fromkeys(archive.links.get(name, name) for name in layers))
        labels, digest = _at(config, "config", "Labels"), _SHA256.fullmatch(config_name)
        told = {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}
        return Checked(named, digest[1] if digest else "", told)


def _survey(file: BinaryIO, size: int, limits: Limits) -> _Archive:
    archive, span, count = _Archive(file, limits), Span(file, 0, size), 0
    for entry in entries(span):
        count += 1
        name = posixpath.normpath(entry.name)
        if count > limits.outer_entries:
            raise BadArchive(f"it holds more than {limits.outer_entries} files")
        if entry.name.startswith("/") or name.startswith("../") or name == "..":
            raise BadArchive(f"{shown(entry.name)} leads out of it")
        if entry.kind == DIRECTORY:
            continue
        if name in archive.places or name in archive.links:
            raise BadArchive(f"{shown(entry.name)} stands in it twice")
        if entry.kind == REGULAR:
            archive.places[name] = (span.at, entry.size)
        elif entry.kind == SYMLINK:
            archive.links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.link))
        else:
            raise BadArchive(f"{shown(entry.name)} is neither a file nor a directory")
    for name, target in archive.links.items():  # Docker writes a layer that comes twice as a link to the first
        if target not in archive.places or {posixpath.basename(target), posixpath.basename(name)} != {"layer.tar"}:
            raise BadArchive(f"{shown(name)} is a link that leads to no layer of it")
    return archive


def _manifest(archive: _Archive, image: str | None) -> tuple[str, str, list[str]]:
    manifests = archive.json("manifest.json")
    if not isinstance(manifests, list) or len(manifests) != 1 or not isinstance(manifests[0], dict):
        raise BadArchive("its manifest must name just one image")
    names, layers = manifests[0].get("RepoTags"), manifests[0].get("Layers")
    if not isinstance(names, list) or len(names) != 1 or image not in (None, names[0]) or not _is_name(names[0]):
        raise BadArchive(f"its manifest names {_words(names)}, not {image or 'one image'} alone")
    if not isinstance(layers, list) or not layers or not all(isinstance(name, str) for name in layers):
        raise BadArchive("its manifest names no layers")
    return names[0], str(manifests[0].get("Config")), layers


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _words(names: object) -> str:
    return shown(" and ".join(map(str, names)) if isinstance(names, list) and names else "no image")


def _check_index(archive: _Archive, image: str, parts: list[str]) -> None:
    """Some daemons read this instead of the manifest, so it must say the same."""
    described = _at(archive.json("index.json"), "manifests")
    if not isinstance(described, list) or len(described) != 1:
        raise BadArchive("its index must name just one image")
    told = [_at(described[0], "annotations", key) for key in _NAME_KEYS]
    known = (None, image, f"docker.io/{image}", f"docker.io/library/{image}", image.rpartition(":")[2])
    if any(name not in known for name in told):
        raise BadArchive(f"its index names {shown(str(told))}, not {image}")
    manifest = archive.json(_blob(_at(described[0], "digest")))
    layers = _at(manifest, "layers")
    found = [_at(manifest, "config"), *(layers if isinstance(layers, list) else [])]
    if [_blob(_at(each, "digest")) for each in found] != parts:
        raise BadArchive("its index and its manifest name different parts")


def _blob(digest: object) -> str:
    return f"blobs/{str(digest).replace(':', '/', 1)}"


def _check_layers(archive: _Archive, names: Iterable[str]) -> None:
    left, count = archive.limits.expanded_bytes, 0
    for name in names:
        for entry in entries(_layer(archive, name, left)):
            count, left = count + 1, left - entry.size
            target = entry.link if entry.kind == HARD_LINK else ""
            if ".." in entry.name.split("/") or ".." in target.split("/"):
                raise BadArchive(f"{shown(entry.name)} in one of its layers leads out of the image")
            if count > archive.limits.entries:
                raise BadArchive(f"its layers hold more than {archive.limits.entries} files")
            if left < 0:
                raise BadArchive("it unpacks to more than is allowed (IMAGE_LIMIT_BYTES)")


def _layer(archive: _Archive, name: str, limit_bytes: int) -> Source:
    span = archive.span(name)
    head = span.read(min(4, archive.places[name][1]))
    span = archive.span(name)
    if head == _ZSTD:
        raise BadArchive("a layer is packed with zstd, which cannot be checked here")
    return Inflated(span, limit_bytes + (limit_bytes >> 3) + (1 << 20)) if head.startswith(_GZIP) else span


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
