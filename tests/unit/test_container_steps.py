"""The step of a node that is a container: what it lists, and what it makes of what the engine shows."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import pytest
from world_kit import cluster

from drainctl.errors import ReleaseError
from drainctl.model import Answer, ContainerLook, ImageReleases, NodeLook
from drainctl.node.image import config_digest, prepare
from drainctl.rollout import rules
from drainctl.steps import Holds, Job, Look, Never, NotYet, ReplaceContainer, RestartContainer, Seen
from drainctl.strategies import container, expect, http_check

SHOP = cluster(release=None, images=ImageReleases("shop"))
NODE = SHOP.nodes[0]
RUNS = ContainerLook("v2", "running")
HOLDS = expect.at_once("answers v2")


def names(job: Job) -> list[str]:
    return [step.name for step in http_check.journey(SHOP, NODE, job)]


def test_a_container_is_replaced_where_others_are_switched_and_restarted():
    assert "replace" in names(Job("deploy", "v2", leaving="v1"))
    for job in (Job("restart", "v1", leaving="v1"), Job("deploy", "v1", leaving="v1")):
        assert "restart" in names(job)
    assert "run" in names(Job("run", None, "apt-get upgrade"))
    for job in (Job("deploy", "v2", leaving="v1"), Job("restart", "v1"), Job("run", None, "x")):
        assert "switch" not in names(job)


@pytest.mark.parametrize(
    ("job", "act"),
    [
        (Job("deploy", "v2", leaving="v1"), ReplaceContainer("v2", 2.0, anew=True)),
        (Job("rollback", "v1", leaving="v2"), ReplaceContainer("v1", 2.0, anew=False)),
        (Job("put-back", "v1", leaving="v2"), ReplaceContainer("v1", 2.0, anew=False)),
        (Job("deploy", "v2", leaving="v2"), RestartContainer(2.0)),
        (Job("restart", None, leaving="v2"), RestartContainer(2.0)),
    ],
)
def test_what_is_made_anew_and_what_is_put_back(job, act):
    step = container.change(SHOP, job)
    assert step.act == act
    assert step.once
    assert step.changes
    assert step.requires is expect.idle
    assert Look.CONTAINER in step.looks


@pytest.mark.parametrize(
    ("look", "judged", "words"),
    [
        (RUNS, Holds, "answers v2"),
        (RUNS._replace(health="healthy"), Holds, "answers v2"),
        (RUNS._replace(health="starting"), NotYet, "has not passed yet"),
        (RUNS._replace(health="unhealthy", words="no disk"), Never, "says unhealthy: no disk"),
        (RUNS._replace(release="v1"), NotYet, "of release v1, not v2"),
        (RUNS._replace(status="created"), NotYet, "the container is created"),
        (RUNS._replace(status="exited", code=3, words="no db"), Never, "exited with code 3: no db"),
        (RUNS._replace(status="exited", code=137, oom_killed=True), Never, "code 137: it was out of memory"),
        (RUNS._replace(status="restarting", code=1), Never, "ended with code 1, and the engine starts it"),
        (RUNS._replace(restarts=1), Never, "ended, and the engine starts it again"),
        (ContainerLook(None), NotYet, "shows no container"),
        (None, NotYet, "shows no container"),
    ],
)
def test_when_a_container_serves(look, judged, words):
    found = container.serves("v2", HOLDS)(Seen(NODE, (), {}, NodeLook(container=look)))
    assert isinstance(found, judged)
    assert words in found.why


def test_a_container_that_runs_and_does_not_answer_is_waited_for():
    answers = expect.answers_with("v2", version=True, ready=False)
    seen = Seen(NODE, (), {}, NodeLook(container=RUNS, version=Answer(None, error="refused")))
    assert isinstance(container.serves("v2", answers)(seen), NotYet)


def test_a_container_that_does_not_run_is_flagged_as_it_is():
    seen = Seen(
        NODE, (), {}, NodeLook(container=RUNS._replace(status="exited"), check=Answer(None, error="x"))
    )
    assert isinstance(expect.flagged(seen), Holds)
    assert isinstance(expect.flagged(Seen(NODE, (), {}, NodeLook(container=RUNS))), NotYet)


def test_whole_containers_are_replaced_out_of_rotation_only():
    nodes = (replace(NODE, strategy=("port-flip", "http-check")), *SHOP.nodes[1:])
    beside = replace(SHOP, nodes=nodes)
    assert ("strategy", "found port-flip, expected http-check: release.image replaces whole containers") in (
        rules.problems(beside)
    )


# ---------------------------------------------------------------- which image is meant


def named(source=None, image=None, release_id=None, sha256=None):
    release = prepare("reg:5000/shop", source, image, id=release_id, sha256=sha256)
    return release.id, release.image


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ({"image": "reg:5000/shop:1.4.2"}, ("1.4.2", "reg:5000/shop:1.4.2")),
        ({"image": "reg:5000/shop"}, ("latest", "reg:5000/shop:latest")),
        ({"source": "1.4.2"}, ("1.4.2", "reg:5000/shop:1.4.2")),
        ({"source": "reg:5000/shop:1.4.2"}, ("1.4.2", "reg:5000/shop:1.4.2")),
        ({"source": "latest", "release_id": "20261125"}, ("20261125", "reg:5000/shop:latest")),
    ],
)
def test_a_tag_is_a_release(words, found):
    assert named(**words) == found


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"image": "shop:1.4.2"}, "expected reg:5000/shop:TAG"),
        ({"source": "a b"}, "expected a tag of reg:5000/shop"),
        ({"source": "1.4.2", "image": "reg:5000/shop:1.4.2"}, "expected one of them"),
        ({"source": "1.4.2", "release_id": "a/b"}, "cannot be an image's id"),
        ({"source": "1.4.2", "sha256": "abc"}, "expected an image's id: 64"),
    ],
)
def test_what_is_no_release(words, why):
    with pytest.raises(ReleaseError, match=why):
        named(**words)


def archive(path, *images):
    """What `docker save` of these images makes, as far as it is read."""
    told = [{"Config": f"{'ab' * 32}.json", "RepoTags": [image], "Layers": []} for image in images]
    data = json.dumps(told).encode()
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return str(path)


def test_an_archive_says_which_image_it_is(tmp_path):
    one = archive(tmp_path / "one.tar", "reg:5000/shop:1.4.2", "other:1")
    assert named(one) == ("1.4.2", "reg:5000/shop:1.4.2")
    assert config_digest(one, "reg:5000/shop:1.4.2") == "sha256:" + "ab" * 32
    assert config_digest(one, "reg:5000/shop:1.4.3") is None
    two = archive(tmp_path / "two.tar", "reg:5000/shop:1.4.2", "reg:5000/shop:1.4.3")
    with pytest.raises(ReleaseError, match="expected one image of reg:5000/shop") as caught:
        named(two)
    assert caught.value.hint == "--image reg:5000/shop:TAG says which"
    assert named(two, "reg:5000/shop:1.4.3") == ("1.4.3", "reg:5000/shop:1.4.3")


def test_a_file_that_is_no_archive_of_images(tmp_path):
    (tmp_path / "x").write_text("x")
    with pytest.raises(ReleaseError, match="cannot be read"):
        named(str(tmp_path / "x"))
    with tarfile.open(tmp_path / "shop.tar", "w"):
        pass
    with pytest.raises(ReleaseError, match="is no archive of `docker save`"):
        named(str(tmp_path / "shop.tar"))
