"""The door: a picture to findings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from drainctl.doctor import balancers, cluster, flips, haproxy, nodes, reloads, timings, upstreams
from drainctl.doctor.finding import Finding, Severity
from drainctl.doctor.picture import Picture

Rule = Callable[[Picture], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    balancers.unreachable, balancers.unknown_servers, balancers.filtered_pages, balancers.out_by_hand,
    balancers.no_check, balancers.first_check_pending, balancers.down, balancers.weight_zero,
    balancers.too_few, balancers.disagreement, balancers.not_admin, balancers.no_master,
    balancers.old_workers, balancers.reloaded, balancers.process_changes, balancers.versions,
    balancers.sticky, balancers.agents, balancers.other_backends, balancers.slow_requests,
    cluster.journal, cluster.proof_of_restart, cluster.deployable, cluster.checks_and_drain, cluster.keep_up,
    nodes.unreachable, nodes.host_key, nodes.not_examined, nodes.flagged, nodes.check_answer, nodes.version,
    nodes.releases, nodes.check_elsewhere, nodes.flag_folder, nodes.tools, nodes.root, nodes.fence,
    nodes.disk, nodes.shared, nodes.restart, nodes.clock,
    haproxy.unread, haproxy.health_check, haproxy.tracking, haproxy.unchecked, haproxy.cut_when_marked,
    haproxy.persistence, haproxy.retries, haproxy.state_file, haproxy.idle_clients, haproxy.check_target,
    haproxy.check_page, haproxy.weights, haproxy.agents, haproxy.page_scope, haproxy.timeout_server,
    flips.tools, flips.commands, flips.link, flips.socket_not_named, flips.not_running, flips.file,
    flips.folder, flips.generation, flips.ports, flips.not_included, flips.clients, flips.shutdown,
    flips.silent,
    upstreams.unread, upstreams.keeps_connections, upstreams.runs_twice, upstreams.short_reads,
    upstreams.fail_timeout, upstreams.marks_failed, upstreams.no_backup, upstreams.on_ports,
    upstreams.not_hidden,
    reloads.masters, reloads.stranger, reloads.keeps_release, reloads.ends_service,
    reloads.ends_unit, reloads.servers,
    timings.differing, timings.outlasting, timings.no_timeout,
)  # fmt: skip


def examine(picture: Picture) -> list[Finding]:
    """
    Every finding, the worst first, each once.

    What `drainctl plan` would refuse by comes last and only where nothing else says why: so exit codes agree.
    """
    found = [finding for rule in RULES for finding in rule(picture)]
    if not any(finding.severity is Severity.REFUSES for finding in found):
        found += cluster.others(picture)
    order = list(Severity)
    return sorted(dict.fromkeys(found), key=lambda finding: order.index(finding.severity))
