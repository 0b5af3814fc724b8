"""
A Docker engine, through the docker SDK: what is asked of it, and its refusals in our words.

Reached by a local socket, through SSH (`ssh://[user@]host[:port]`, by the SDK's own client: known host keys
only, ssh_config's ProxyCommand and keys), or by TCP with TLS. The API's version is negotiated at the first
question. Source: Docker Engine API, https://docs.docker.com/reference/api/engine/.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from drainctl.errors import CommandFailed, ConfigError, ConnectFailed, TransportError
from drainctl.node import exec_stream

if TYPE_CHECKING:
    from docker import APIClient

    from drainctl.node.exec_stream import Socket

CHANGE_S = 60.0
STAGE_S = 900.0
SOCKET = "unix:///var/run/docker.sock"
LOGIN = "`docker login` where drainctl runs: the engine is given what that user's ~/.docker/config.json has"
FULL = ("no space left on device", "disk quota exceeded")
Json = dict[str, Any]


class Tls(NamedTuple):
    """Files: the authority that signed the engine's certificate, and our own certificate and its key."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class Engine:
    """
    One engine. Nothing is connected before the first question; safe to share between threads.

    Every method raises ConnectFailed where the engine does not answer, and CommandFailed, with the engine's
    words, where it refuses.

    Args:
        url: unix://, ssh:// or tcp://; None: $DOCKER_HOST with $DOCKER_CERT_PATH, else the local socket.
        tls: for tcp://.
        timeout_s: most time for one answer to a question; changes may take CHANGE_S, staging STAGE_S.
    """

    def __init__(self, url: str | None = None, tls: Tls | None = None, timeout_s: float = 10.0) -> None:
        self.url, self._tls = (url, tls or Tls()) if url else _from_environment()
        self.timeout_s = timeout_s
        self._clients: dict[float, APIClient] = {}  # by the most time that an answer may take
        self._opening = threading.Lock()

    # -------------------------------------------------------- containers

    def container(self, name: str) -> Json | None:
        """`docker inspect` of a container by name or id; None where there is none."""
        with self._said(f"inspect {name}"):
            found: Json | None = _or_none(lambda: self.api.inspect_container(name))
        return found

    def names(self, prefix: str) -> list[str]:
        """Names of all containers, also stopped ones, that begin with `prefix`."""
        with self._said("list the containers"):
            found = self.api.containers(all=True, filters={"name": f"^/{prefix}"})
        names = [name.removeprefix("/") for each in found for name in each["Names"]]
        return [name for name in names if name.startswith(prefix)]

    def create(self, name: str, config: Json, networks: Mapping[str, Json]) -> None:
        """Create a container by the API's own words, and connect it to further networks."""
        with self._said(f"create {name}"):
            self._changing.create_container_from_config(config, name)
            for network, endpoint in networks.items():
                self._changing.connect_container_to_network(
                    name,
                    network,
                    ipv4_address=endpoint["IPAMConfig"].get("IPv4Address"),
                    ipv6_address=endpoint["IPAMConfig"].get("IPv6Address"),
                    aliases=endpoint["Aliases"],
                    links=endpoint["Links"],
                    driver_opt=endpoint["DriverOpts"],
                )

    def start(self, name: str) -> None:
        """Start it; that it runs already is fine."""
        with self._said(f"start {name}"):
            self._changing.start(name)

    def stop(self, name: str, grace_s: int) -> None:
        """Stop it by its own signal, and by SIGKILL `grace_s` seconds later; that it is stopped is fine."""
        with self._said(f"stop {name}"):
            self._changing.stop(name, timeout=grace_s)

    def rename(self, name: str, to: str) -> None:
        """Give it another name. Raises: CommandFailed where that name is taken."""
        with self._said(f"rename {name} to {to}"):
            self._changing.rename(name, to)

    def remove(self, name: str, *, volumes: bool = True) -> None:
        """Delete a stopped container, and its anonymous volumes; that it is gone is fine."""
        with self._said(f"remove {name}"):
            _or_none(lambda: self._changing.remove_container(name, v=volumes))

    def restart_policy(self, name: str, policy: Json) -> None:
        """Set whether the engine starts it by itself."""
        with self._said(f"update {name}"):
            self._changing.update_container(name, restart_policy=policy)

    def logs(self, name: str, lines: int) -> str:
        """The last lines that it wrote, stdout and stderr."""
        with self._said(f"logs of {name}"):
            said: bytes = self.api.logs(name, tail=lines)
        return said.decode(errors="replace")

    def fetch(self, name: str, path: str) -> bytes | None:
        """A path of the container, running or not, as a tar; None where there is none."""
        with self._said(f"read {path} of {name}"):
            found = _or_none(lambda: self.api.get_archive(name, path))
            return None if found is None else b"".join(found[0])

    def put(self, name: str, tar: bytes) -> None:
        """Unpack a tar at / of the container, running or not."""
        with self._said(f"write into {name}"):
            self._changing.put_archive(name, "/", tar)

    # -------------------------------------------------------- images

    def image(self, ref: str) -> Json | None:
        """`docker image inspect`; None where it is not on this engine."""
        with self._said(f"inspect image {ref}"):
            found: Json | None = _or_none(lambda: self.api.inspect_image(ref))
        return found

    def pull(self, ref: str) -> None:
        """Pull an image by the engine; what it says of a layer that failed is the error's."""
        with self._said(f"pull {ref}"):
            _follow(self._staging.pull(ref, stream=True, decode=True), f"pull {ref}")

    def load(self, archive: BinaryIO) -> None:
        """Load what `docker save` wrote."""
        with self._said("load the image"):
            _follow(self._staging.load_image(archive), "load the image")

    # -------------------------------------------------------- exec

    def exec_create(self, container: str, argv: Sequence[str], user: str, *, stdin: bool) -> str:
        """Prepare a command in a running container; its id."""
        with self._said("exec"):
            made = self.api.exec_create(container, list(argv), user=user, stdin=stdin)
        return str(made["Id"])

    def exec_state(self, exec_id: str) -> tuple[bool, int | None]:
        """Whether it still runs, and the code that it ended with."""
        with self._said("inspect the exec"):
            found = self.api.exec_inspect(exec_id)
        return bool(found["Running"]), found["ExitCode"]

    def exec_path(self, exec_id: str) -> str:
        """Where its stream is asked for."""
        return f"/v{self.api.api_version}/exec/{exec_id}/start"

    def connect(self) -> Socket:
        """A connection of its own to the engine's API. Raises: ConnectFailed."""
        with self._said("connect"):
            return exec_stream.connect(self.url, self._tls, self.timeout_s, self.api)

    # -------------------------------------------------------- the connection

    @property
    def api(self) -> APIClient:
        """The SDK's client, connected. Raises: ConnectFailed, ConfigError (no SDK)."""
        return self._client(self.timeout_s)

    @property
    def _changing(self) -> APIClient:
        return self._client(max(CHANGE_S, self.timeout_s))

    @property
    def _staging(self) -> APIClient:
        return self._client(max(STAGE_S, self.timeout_s))

    def _client(self, timeout_s: float) -> APIClient:
        with self._opening:
            if timeout_s not in self._clients:
                try:
                    import docker
                except ImportError as error:
                    raise ConfigError(
                        "connect.via = docker needs the docker SDK, which is not installed",
                        hint="pip install 'drainctl[docker]'",
                    ) from error

                class Client(docker.APIClient):  # type: ignore[misc]  # the SDK has no types
                    # Else requests takes $REQUESTS_CA_BUNDLE before the authority that was named.
                    trust_env = property(lambda _: False, lambda _, __: None)

                with self._said("connect"):
                    if not self.url.startswith("ssh:"):  # the SDK leaves open what cannot connect
                        exec_stream.connect(self.url, self._tls, timeout_s, None).close()
                    self._clients[timeout_s] = Client(
                        base_url=self.url, version="auto", timeout=timeout_s, tls=self._sdk_tls()
                    )
            return self._clients[timeout_s]

    def close(self) -> None:
        """End all connections. May be called twice; the next question opens new ones."""
        while self._clients:
            self._clients.popitem()[1].close()

    def _sdk_tls(self) -> Any:
        from docker.tls import TLSConfig

        if self._tls == Tls():
            return False
        pair = (self._tls.cert, self._tls.key) if self._tls.cert and self._tls.key else None
        return TLSConfig(client_cert=pair, ca_cert=self._tls.ca, verify=True)

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """What the SDK raises, in words of ours. requests and paramiko raise OSErrors of their own."""
        from docker.errors import APIError, DockerException

        try:
            yield
        except TransportError:
            raise
        except APIError as error:
            raise refusal(what, _explained(error)) from error
        except (DockerException, OSError) as error:
            self.close()  # what was lost is not used again
            raise ConnectFailed(
                f"engine {self.url} does not answer ({what}): {_cause(error)}", hint=_hint(error, self.url)
            ) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in {"paramiko", "urllib3"}:
                raise
            self.close()
            raise ConnectFailed(f"engine {self.url} does not answer ({what}): {_cause(error)}") from error


def refusal(what: str, words: str) -> TransportError:
    """The engine said no. A container that does not run, or is not there, cannot be reached."""
    low = words.lower()
    if any(text in low for text in ("is not running", "no such container", "is paused", "is restarting")):
        return ConnectFailed(f"{what}: {words}")
    if any(text in low for text in FULL):
        return CommandFailed(
            f"{what}: the engine's disk is full: {words}",
            hint="make room where the engine keeps its data (`docker system df` tells of what)",
        )
    denied = any(text in low for text in ("unauthorized", "access denied", "authentication required"))
    return CommandFailed(f"{what}: {words}", hint=LOGIN if denied else None)


def _from_environment() -> tuple[str, Tls]:
    """As the docker command: DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH."""
    import os

    url = os.environ.get("DOCKER_HOST") or SOCKET
    if not url.startswith("tcp://") or not os.environ.get("DOCKER_TLS_VERIFY"):
        return url, Tls()
    folder = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")  # noqa: PTH111 - no pathlib here
    return url, Tls(f"{folder}/ca.pem", f"{folder}/cert.pem", f"{folder}/key.pem")


def _or_none(ask: Any) -> Any:
    from docker.errors import NotFound

    try:
        return ask()
    except NotFound:
        return None


def _follow(said: Any, what: str) -> None:
    """The engine's progress, line by line; a line that is an error ends it."""
    for line in said:
        if "error" in line:
            raise refusal(what, str(line["error"]).strip())


def _explained(error: Any) -> str:
    words = " ".join(str(error.explanation or error).split())
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", words)  # ids as `docker ps` shows them


def _cause(error: BaseException) -> str:
    """The innermost reason: the SDK wraps what requests wraps what urllib3 wraps."""
    last = error
    while (inner := last.__cause__ or last.__context__) is not None:
        last = inner
    return (last.strerror if isinstance(last, OSError) else None) or str(last) or type(last).__name__


def _hint(error: BaseException, url: str) -> str:
    if _cause(error) == "Permission denied":
        return f"this user may not use {url}: on most systems members of group docker may"
    return f"does the engine run? `docker -H {url} version` tells"
