"""Makes image archives for tests, good ones as `docker save` writes them and any kind of bad ones."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.docker_daemon import busybox_tar, tar_entry

IMAGE = "kohakuriver/lab:base"
Member = tuple[tarfile.TarInfo, bytes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def member(name: str, data: bytes = b"", **changes: Any) -> Member:
    """An entry of a tar; `changes` go to `tar_entry`, or onto the entry."""
    plain = {key: changes.pop(key) for key in ("kind", "mode", "link") if key in changes}
    entry = tar_entry(name, size=len(data), **plain)
    for key, value in changes.items():
        setattr(entry, key, value)
    return entry, data


def tar_of(members: Iterable[Member], form: int = tarfile.PAX_FORMAT) -> bytes:
    """The bytes of a tar with these entries, whatever they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for entry, data in members:
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@dataclass
class Archive:
    """The archive of one image with one layer; each part may be changed before it is written."""

    layer: bytes = field(default_factory=busybox_tar)
    labels: Mapping[str, str] = field(default_factory=dict)
    image: str = IMAGE
    more: list[Member] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    packed: bool = False

    @property
    def config_text(self) -> bytes:
        made = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": dict(self.labels), "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(self.layer)}"]},
            "history": [{"created_by": "a test"}],
        }
        return json.dumps(made | self.config).encode()

    def members(self) -> list[Member]:
        text = self.config_text
        name = f"{sha256(text)}.json"
        manifest = {"Config": name, "RepoTags": [self.image], "Layers": ["one/layer.tar"]} | self.manifest
        layer = gzip.compress(self.layer) if self.packed else self.layer
        return [
            member("one", kind=tarfile.DIRTYPE),
            member("one/layer.tar", layer),
            member(name, text),
            *self.more,
            member("manifest.json", json.dumps([manifest]).encode()),
        ]

    def data(self) -> bytes:
        return tar_of(self.members())

    def write(self, path: Path) -> Path:
        path.write_bytes(self.data())
        return path


def oci_members(archive: Archive, name: str = f"docker.io/{IMAGE}") -> list[Member]:
    """The same image as newer daemons save it: blobs, an index, and the manifest beside it."""
    text, layer = archive.config_text, archive.layer
    parts = [{"digest": f"sha256:{sha256(text)}", "size": len(text)}, {"digest": f"sha256:{sha256(layer)}"}]
    manifest = json.dumps({"schemaVersion": 2, "config": parts[0], "layers": parts[1:]}).encode()
    described = {"digest": f"sha256:{sha256(manifest)}", "annotations": {"io.containerd.image.name": name}}
    old = {"Config": f"blobs/sha256/{sha256(text)}", "RepoTags": [IMAGE], "Layers": [f"blobs/sha256/{sha256(layer)}"]}
    return [
        *(member(f"blobs/sha256/{sha256(data)}", data) for data in (text, layer, manifest)),
        member("index.json", json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()),
        member("manifest.json", json.dumps([old]).encode()),
    ]
