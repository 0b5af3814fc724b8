"""The steps of a node that is a container: replaced by one of another image, or started again. Pure."""

from __future__ import annotations

from drainctl.model import Cluster, ContainerLook
from drainctl.steps import (
    Expectation,
    Holds,
    Job,
    Look,
    Never,
    NotYet,
    ReplaceContainer,
    RestartContainer,
    Seen,
    Step,
)
from drainctl.strategies import common, expect


def change(cluster: Cluster, job: Job) -> Step:
    """The container of the job's release in the node's place, running, healthy, and answering."""
    if job.switches and job.target != job.leaving:
        return _step(cluster, job, "replace")
    return _step(cluster, job, "restart")


def _step(cluster: Cluster, job: Job, name: str) -> Step:
    limit_s = cluster.service.limit_s
    answers, looks = common.answers(cluster, job.target)
    told = f" with {job.target}" if job.target else ""
    release = str(job.target)
    return Step(
        name=name,
        act=ReplaceContainer(release, limit_s, anew=job.verb == "deploy")
        if name == "replace"
        else RestartContainer(limit_s),
        seen_when=f"the container runs, its HEALTHCHECK (if any) says healthy, and the app answers{told}",
        expects=serves(job.target, answers),
        looks=looks | {Look.CONTAINER},
        limit_s=limit_s,
        requires=expect.idle,
        once=True,
        changes=True,
        every_s=0.05,
        expected_s=None,
    )


def serves(release: str | None, answers: Expectation) -> Expectation:
    """The engine shows the container of `release` running and healthy, and then `answers` holds."""

    def judge(seen: Seen) -> Holds | NotYet | Never:
        look = seen.host.container
        if look is None or look.release is None:
            return NotYet("the engine shows no container")
        if failed := _failed(look):
            return Never(failed)
        if not look.running:
            return NotYet(f"the container is {look.status}")
        if release is not None and look.release != release:
            return NotYet(f"the container is of release {look.release}, not {release}")
        if look.health == "starting":
            return NotYet("the container's HEALTHCHECK has not passed yet")
        return answers(seen)

    return judge


def _failed(look: ContainerLook) -> str | None:
    """Why waiting for this container will not help, in words."""
    said = f": {look.words}" if look.words else ""
    memory = ": it was out of memory" if look.oom_killed else ""
    if look.status in ("exited", "dead"):
        return f"the container exited with code {look.code}{memory}{said}"
    if look.restarts or look.status == "restarting":
        code = f" with code {look.code}" if look.code else ""
        return f"the container ended{code}{memory}, and the engine starts it again{said}"
    if look.health == "unhealthy":
        return f"the container's HEALTHCHECK says unhealthy{said}"
    return None
