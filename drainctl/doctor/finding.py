"""
A finding is data: a stable code, how bad it is, where, what was seen, and the line to add or change.

`WHY` has every code there is; docs/doctor.md has a section for each, with what was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How bad a finding is, the worst first."""

    REFUSES = "refuses"  # a deploy would not begin, or would stop there
    LOSES = "loses requests"
    SLOWER = "slower"
    ADVICE = "advice"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One trap that was found.

    where: balancer, place, node or file:line. seen: what was seen, with its value. change: the line to add
    or change, or the command to run, as it has to be typed.
    """

    code: str
    severity: Severity
    where: str
    seen: str
    change: str

    @property
    def why(self) -> str:
        """What follows from it, in a sentence or two."""
        return WHY[self.code]

    @property
    def docs(self) -> str:
        """Where the manual tells more."""
        return f"docs/doctor.md#{self.code}"


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The worst severity among the findings; None without any."""
    return min((finding.severity for finding in findings), key=list(Severity).index, default=None)


# ---------------------------------------------------------------- every code, and what follows from it

WHY = {
    # what the balancers show
    "balancer-unreachable": (
        "Nothing is changed while a balancer cannot be seen: it may still send requests."
    ),
    "server-unknown": (
        "A node that a balancer does not have under this name can neither be drained nor watched."
    ),
    "stats-page-hides": (
        "What the page does not list cannot be seen leaving rotation, so a deploy does not begin."
    ),
    "server-out-by-hand": "Somebody took it out. A rollout that put it back would undo that person's work.",
    "no-check": "Without a check, no answer of the node ever takes it out of rotation.",
    "first-check-pending": "Until its first check ends, HAProxy shows it UP without knowing.",
    "keep-up": "Were it taken out now, fewer servers would be up than rollout.keep_up promises.",
    "deploy-refused": "`drainctl deploy` would end with exit code 5 and touch nothing.",
    "server-down": (
        "It takes no requests now: its share is on the others, and it counts as lost in keep_up."
    ),
    "weight-zero": "It shows UP and gets no new requests, so it does not count as capacity.",
    "one-usable-server": (
        "While it is out nobody is left: HAProxy answers 503 to everybody, and never refuses a drain."
    ),
    "backups-only": "Only backup servers carry the traffic. They do not count for keep_up.",
    "balancers-disagree": (
        "One balancer sends requests to a server that another one takes for dead or gone."
    ),
    "socket-not-admin": (
        "drainctl cannot tell HAProxy what its next check will find, so each way waits for that check. "
        "After a reload it cannot take a drained server out again either."
    ),
    "no-master-socket": (
        "Requests that a reload left in an old worker are in no count of the new one, so a node can look "
        "idle while it still answers them."
    ),
    "old-workers": "A reload left them behind with requests that still run; a drain waits for these too.",
    "reloaded-recently": "Its counters begin anew, and somebody may still be at work on it.",
    "process-changes": (
        "Two processes answer on one address in turn, so half of what is seen is of the wrong one, and a "
        "drain reaches only one of them."
    ),
    "versions-differ": "What was tried on one version was not tried on the other.",
    "sticky-clients": (
        "A 404 stops new clients only: those with a cookie or a stick-table entry keep going to the drained "
        "server. A busy site never reaches zero, and on a quiet one their next request may meet an app that "
        "restarts."
    ),
    "agent-check": (
        "An agent's `ready` also lifts a MAINT that drainctl set, and its `drain` comes back after `ready`."
    ),
    "backend-not-listed": (
        "The same app server stands in a backend that drainctl does not look at: its requests are not waited "
        "for and its capacity is not guarded."
    ),
    "slow-requests": "A request that takes longer than drain.limit outlasts the drain.",
    # what drainctl.yml says
    "no-version": (
        "Only the version proves that a restart brought the new release; ready proves that something answers."
    ),
    "no-restart": "`drainctl deploy SOURCE` needs both; without them only `--command` can deploy.",
    # what the journal says
    "journal-unusable": "Intent is written before each act; without a journal nothing is begun.",
    "lease-held": "One rollout at a time: `drainctl deploy` would end with exit code 4.",
    "rollout-open": "A rollout that was not finished comes first.",
    # what the nodes show
    "node-unreachable": "Nothing is changed while a node of the rollout cannot be worked on.",
    "host-key-unknown": "drainctl never trusts a key at first sight, so it does not connect.",
    "node-not-examined": "Folders, programs and the clock of this node were not looked at.",
    "node-flagged": "Somebody drains it already; only `--steal` takes that away.",
    "check-not-200": "It is in rotation by HAProxy's last check, and its health page says otherwise now.",
    "version-silent": "A restart is over when the version answers; here it never would be.",
    "version-not-current": (
        "The app was not restarted since the link was switched, or the version names something else than the "
        "release's id, and then no deploy can end."
    ),
    "flag-folder-missing": "The flag cannot be written, so a deploy would stop at its first act.",
    "flag-folder-not-writable": "The flag cannot be written, so a deploy would stop at its first act.",
    "flag-hidden": (
        "The user who answers /http-check cannot search the flag's folder, so the flag looks absent to it "
        "and the check stays 200."
    ),
    "tool-missing": "A step of the rollout runs it on the node.",
    "current-not-link": (
        "A release is switched by renaming a link over `current`; a folder stands in its way."
    ),
    "fence-not-kept": (
        "The node then refuses no controller that another one has replaced: one that was stopped for longer "
        "than its lease and woken acts."
    ),
    "root-not-writable": "Releases cannot be unpacked or switched there by this user.",
    "disk-full": "A release needs room for its archive and for what is unpacked from it.",
    "shared-missing": "Each release links to it; a release without it is not staged.",
    "restart-missing": "service.restart cannot be run, and the node would stay drained on the new release.",
    "sudo-asks": "There is no terminal to type a password on: the restart would fail after the drain.",
    "clock-skew": "Times in flags and logs of this node do not fit the controller's.",
    "releases-differ": (
        "The nodes run different releases: users see both, and a rollback goes back to each node's own."
    ),
    # what the nodes show of the in-place strategies
    "command-missing": "A step of the rollout runs it on the node.",
    "socket-not-link": "A flip renames a link over it; what is there is no link to a socket.",
    "upstream-not-socket": "Were the link swapped, users would still be served by what nginx connects to.",
    "nginx-not-running": "There is nothing that a rewritten upstream could be taken up by.",
    "upstream-file-missing": (
        "drainctl writes this file and reads from it which port serves; the first one is written by a "
        "person, or by `--adopt`."
    ),
    "upstream-file-foreign": "drainctl overwrites no file that somebody else wrote, unless it is told to.",
    "upstream-file-unreadable": "What serves now cannot be told, so nothing is rewritten.",
    "upstream-folder-not-writable": (
        "The file is written beside its place and renamed, so that it is whole at any moment: that takes the "
        "right to write in its folder."
    ),
    "upstream-not-included": "drainctl would rewrite a file by which nginx does not serve.",
    "generation-silent": (
        "Only by this page is it seen that nginx serves with the new file: its reload says yes before it has "
        "read anything."
    ),
    "generation-other": "What nginx serves with is not what the file says.",
    "port-taken": "The next release could not start there, or a stranger would be sent users.",
    "nginx-test-fails": "The test is run at every flip; where it fails the old file is put back.",
    "nginx-unread": "What nginx's configuration says of connections, limits and servers is not judged.",
    "clients-lost": (
        "A reload closes idle client connections, and a request that is on its way there is lost without an "
        "answer."
    ),
    "clients-not-kept": (
        "nginx.clients says that no client meets a close at a reload; what was read does not say so."
    ),
    "shutdown-cuts": "A reload ends old workers then, with whatever they still answer.",
    "silent-clients": (
        "A client that connects and says nothing holds an old worker that long, and the old process stays."
    ),
    "upstream-keeps-connections": (
        "A kept connection still leads to the old process after a flip, and a POST that meets its close is "
        "lost: nginx does not send it again."
    ),
    "posts-twice": "It hides a failure by running a POST again that may have been done already.",
    "slow-counts-as-failed": (
        "A slow page marks the server failed for everybody; asked of the backup it is slow there too, and "
        "then nobody is left."
    ),
    "fail-timeout-differs": (
        "drainctl waits so long between the two restarts: too short, and nginx still avoids the one while "
        "the other is stopped."
    ),
    "marks-failed": "One error takes this server away from everybody for fail_timeout.",
    "no-backup-server": "While the first is restarted there is nobody whom nginx would ask instead.",
    "backup-on-ports": (
        "An app that is told to end may go on listening until its last request is over; who connects "
        "meanwhile is reset, and a POST is not asked of the backup."
    ),
    "socket-not-hideable": "The process behind it would lose whoever connects while it ends.",
    "gunicorn-not-running": "Signals go to the process that this file names.",
    "gunicorn-two-masters": "Two releases answer by turns; which of them is to stay is a person's decision.",
    "reload-keeps-release": (
        "It would come up with the old release again, and the deploy would be put back."
    ),
    "reload-by-hup": (
        "When a release's workers do not start, gunicorn's master ends after HUP and nobody listens any "
        "more; after USR2 the old one serves on."
    ),
    "usr2-ends-unit": (
        "When the first master ends, systemd takes its unit for ended, and ends the second one with it: then "
        "nobody listens."
    ),
    "reload-server": "Its reload was tried and does not do what is wanted of it.",
    # what haproxy.cfg says
    "cfg-unread": "This part of the file is not judged here.",
    "no-httpchk": "A plain connect is no question that could be answered 404.",
    "no-disable-on-404": (
        "Without it a 404 is a failed check, and the server gets requests until `fall` of them made it DOWN. "
        "drainctl's nudge hides that; without a nudge a deploy stops at `out`, and whoever sets the flag by "
        "hand loses requests."
    ),
    "track-without-httpchk": (
        "HAProxy refuses to start: a tracking backend must have the same disable-on-404."
    ),
    "marked-down-cuts": (
        "Every request in flight is cut with a 502 when the server goes from NOLB to DOWN or to MAINT: a "
        "restarted node does that."
    ),
    "marked-up-cuts": "A server that comes back cuts the requests that its backups are answering (502).",
    "option-persist": (
        "Clients with a cookie are sent to their server even while it is down or in MAINT: nothing moves "
        "them, and a restart answers them 503."
    ),
    "no-redispatch": (
        "A request that cannot be connected is tried on the same dead server again and again, once a second, "
        "and then answered 503."
    ),
    "retries-zero": "Each connection that is refused is a 503 for its client at once.",
    "state-lost-at-reload": (
        "A reloaded HAProxy shows every server UP and sends it requests until its first check, a drained one "
        "too: up to one `inter`."
    ),
    "idle-cut-at-reload": (
        "A reload of HAProxy closes idle client connections at once; a request just being sent on one "
        "is lost, and no client may send a POST twice."
    ),
    "check-not-the-app": (
        "What answers the check is not what takes the requests: a dead app stays in rotation."
    ),
    "check-asks-other": "The flag has to be where HAProxy looks: drainctl asks one page, HAProxy another.",
    "checks-differ": (
        "drainctl takes its limits from `checks:`; too short ones end a rollout that only had to wait."
    ),
    "checks-outlast-drain": (
        "The check that sees the 404 may come later than drain.limit allows the whole drain."
    ),
    "no-timeout-check": (
        "Without it `inter` bounds the whole check: a slow health page takes a healthy server out."
    ),
    "slowstart-outlasts-watch": (
        "A restored server takes only a part of its share until slowstart is over; the next node would leave "
        "before that."
    ),
    "timeout-server-hit": "The slowest requests ended just when HAProxy gives up: their clients got a 504.",
}
