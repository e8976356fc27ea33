"""Image archives: what Docker writes passes, and whatever is broken or meant badly is refused with a reason."""

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kohakuriver.system.image_archive import BadArchive, Limits, check_archive
from tests.system.archive_maker import IMAGE, Archive, Member, member, oci_members, sha256, tar_of

LIMITS = Limits(expanded_bytes=50_000_000, entries=5000, outer_entries=50)
SMALL = tar_of([member("bin/sh", b"#!")])


def check(path: Path, data: bytes, image: str | None = IMAGE) -> object:
    """The labels."""
    (path / "image.tar").write_bytes(data)
    return check_archive(path / "image.tar", image, LIMITS).labels


def test_what_docker_saves_passes_and_tells_its_labels(tmp_path: Path) -> None:
    assert check(tmp_path, Archive(labels={"a": "b"}).data()) == {"a": "b"}


@pytest.mark.parametrize("name", ["debian:12", "lab.example:5000/team/tool:1.0-rc_2", IMAGE])
def test_one_image_of_any_name_passes_where_none_is_named(tmp_path: Path, name: str) -> None:
    made = Archive(image=name)
    checked = check_archive(made.write(tmp_path / "image.tar"), None, LIMITS)
    assert (checked.image, checked.config_digest) == (name, sha256(made.config_text))


@pytest.mark.parametrize("tags", [None, [], ["a:1", "b:1"], ["../x:1"], ["a b:1"], [""], ["debian"], [5]])
def test_what_is_not_one_image_with_a_name_is_refused(tmp_path: Path, tags: object) -> None:
    with pytest.raises(BadArchive, match="not one image alone"):
        check(tmp_path, Archive(layer=SMALL, manifest={"RepoTags": tags}).data(), None)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_with_long_names_passes(tmp_path: Path, form: int) -> None:
    long = f"{'d' * 90}/{'e' * 90}" + ("" if form == tarfile.USTAR_FORMAT else f"/{'ü' * 200}")
    assert check(tmp_path, Archive(layer=tar_of([member(long, b"x" * 700), member("z", b"z")], form)).data()) == {}


def test_a_packed_layer_passes(tmp_path: Path) -> None:
    assert check(tmp_path, Archive(packed=True).data()) == {}


def test_what_newer_daemons_save_passes(tmp_path: Path) -> None:
    assert check(tmp_path, tar_of(oci_members(Archive(layer=SMALL)))) == {}


def test_a_layer_that_comes_twice_may_be_a_link_to_the_first(tmp_path: Path) -> None:
    twice = {"diff_ids": [f"sha256:{sha256(SMALL)}"] * 2}
    archive = Archive(
        layer=SMALL,
        more=[member("two/layer.tar", kind=tarfile.SYMTYPE, link="../one/layer.tar")],
        manifest={"Layers": ["one/layer.tar", "two/layer.tar"]},
        config={"rootfs": twice},
    )
    assert check(tmp_path, archive.data()) == {}


def hostile(*more: Member) -> bytes:
    return Archive(layer=SMALL, more=list(more)).data()


def in_layer(*members: Member) -> bytes:
    return Archive(layer=tar_of(members)).data()


def bomb() -> bytes:
    """A packed layer of 60 KB that unpacks to 60 MB."""
    return Archive(layer=tar_of([member("zeros", bytes(60_000_000))]), packed=True).data()


def lying_index(name: str) -> bytes:
    return tar_of(oci_members(Archive(layer=SMALL), name))


def other_parts() -> bytes:
    """An index that leads to another image than the manifest does."""
    other = {entry.name: (entry, data) for entry, data in oci_members(Archive(layer=SMALL))}
    mine = {entry.name: (entry, data) for entry, data in oci_members(Archive(layer=tar_of([])))}
    return tar_of((mine | other | {"manifest.json": mine["manifest.json"]}).values())


def with_size(name: str, size: int) -> bytes:
    """An archive in which one entry says that it is larger than all of it."""
    entry, _ = member(name)
    entry.size = size
    data = hostile().rstrip(b"\0")
    return data + bytes(-len(data) % 512) + entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "no tar at all": (lambda: b"hello" * 1000, "a header holds no number"),
    "empty": (lambda: b"", "ends in the middle"),
    "cut off": (lambda: Archive().data()[:900_000], "ends in the middle"),
    "without its end": (lambda: hostile().rstrip(b"\0"), "ends in the middle"),
    "another tar": (lambda: tar_of([member("hello", b"x")]), "no manifest.json"),
    "path out of it": (lambda: hostile(member("../../etc/cron.d/x", b"x")), "leads out of it"),
    "path hidden in the middle": (lambda: hostile(member("one/../../x", b"x")), "leads out of it"),
    "absolute path": (lambda: hostile(member("/etc/passwd", b"x")), "leads out of it"),
    "link out of it": (lambda: hostile(member("a", kind=tarfile.SYMTYPE, link="/etc/shadow")), "leads to no layer"),
    "layer that is a link out of it": (
        lambda: hostile(member("two/layer.tar", kind=tarfile.SYMTYPE, link="../../layer.tar")),
        "leads to no layer",
    ),
    "hard link": (lambda: hostile(member("a", kind=tarfile.LNKTYPE, link="/etc/shadow")), "neither a file"),
    "device": (lambda: hostile(member("sda", kind=tarfile.BLKTYPE)), "neither a file"),
    "named twice": (lambda: hostile(member("one/layer.tar", b"x")), "twice"),
    "too many files": (lambda: hostile(*(member(f"f{n}") for n in range(60))), "more than 50 files"),
    "a size that is not there": (lambda: with_size("big", 10**12), "ends in the middle"),
    "a negative size": (lambda: with_size("big", -5), "negative"),
    "another image": (lambda: Archive(layer=SMALL, image="debian:12").data(), "not kohakuriver/lab:base alone"),
    "two names": (
        lambda: Archive(layer=SMALL, manifest={"RepoTags": [IMAGE, "debian:12"]}).data(),
        "not kohakuriver/lab:base alone",
    ),
    "a layer that is not there": (lambda: Archive(manifest={"Layers": ["two/layer.tar"]}).data(), "not in it"),
    "a configuration out of it": (lambda: Archive(manifest={"Config": "../../etc/shadow"}).data(), "not in it"),
    "more layers than it says": (
        lambda: Archive(layer=SMALL, config={"rootfs": {"diff_ids": []}}).data(),
        "its configuration others",
    ),
    "a configuration of another name": (
        lambda: Archive(
            layer=SMALL, manifest={"Config": f"{'0' * 64}.json"}, more=[member(f"{'0' * 64}.json", b"{}")]
        ).data(),
        "not what its name says",
    ),
    "a manifest that is no JSON": (lambda: tar_of([member("manifest.json", b"[" * 100_000)]), "no JSON"),
    "a manifest without an image": (lambda: tar_of([member("manifest.json", b"[]")]), "just one image"),
    "a huge manifest": (lambda: tar_of([member("manifest.json", b" " * 9_000_000)]), "9000000 bytes"),
    "an index of another name": (lambda: lying_index("docker.io/library/debian:12"), "its index names"),
    "an index of other parts": (other_parts, "different parts"),
    "path out of the image": (lambda: in_layer(member("../../../etc/shadow", b"x")), "leads out of the image"),
    "hard link out of the image": (
        lambda: in_layer(member("a", kind=tarfile.LNKTYPE, link="../../etc/shadow")),
        "leads out of the image",
    ),
    "layer of too many files": (
        lambda: in_layer(*(member(f"f{n}") for n in range(5100))),
        "more than 5000 files",
    ),
    "packed bomb": (bomb, "more than is allowed"),
    "file with holes": (
        lambda: in_layer(member("a", b"x", pax_headers={"GNU.sparse.realsize": str(2**62)})),
        "holes",
    ),
    "endless name": (lambda: in_layer(member("a", b"x", pax_headers={"path": "p" * 2_000_000})), "attribute has"),
    "packed layer that is cut": (
        lambda: Archive(
            manifest={"Layers": ["cut.tar"]}, more=[member("cut.tar", gzip.compress(Archive().layer)[:5000])]
        ).data(),
        "ends in the middle",
    ),
    "layer packed with zstd": (
        lambda: Archive(layer=b"\x28\xb5\x2f\xfd" + bytes(600)).data(),
        "zstd",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_broken_or_meant_badly_is_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    make, reason = BAD[name]
    with pytest.raises(BadArchive, match=reason):
        check(tmp_path, make())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 255)), min_size=1, max_size=8))
def test_whatever_bytes_are_changed_nothing_but_a_refusal_comes_of_it(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(Archive(layer=SMALL).data())
    for at, value in changes:
        data[at % len(data)] = value
    try:
        check(tmp_path, bytes(data))
    except BadArchive as refused:
        assert str(refused)


def test_a_label_that_is_no_text_is_text(tmp_path: Path) -> None:
    archive = Archive(layer=SMALL, config={"config": {"Labels": {"n": 1, "deep": {"x": []}}}})
    assert check(tmp_path, archive.data()) == {"n": "1", "deep": json.dumps({"x": []}).replace('"', "'")}
