#!/bin/sh
# ctl start|stop|restart|status [UNIT]: the service command of one node of the lab. UNIT is one of the app's
# processes: a port (port-flip, backup on ports), a release (socket-flip), live or backup, or the path of its
# socket (backup); elsewhere there is but one, without a name.
# restart takes none: it ends all that run and starts what the node is to run now.
# node.env next to this file names the programs and paths. Exit code 0: done (status: it runs).
set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 2
. "$here/node.env"
export DRAINCTL_LAB PYTHONDONTWRITEBYTECODE=1

usage() { echo "usage: $0 start|stop|restart|status [UNIT] ($STRATEGY: $UNITS)" >&2; exit 2; }

# What belongs to a unit: its pid file, a text that its command line holds, and how it is started.
unit() {
  case $1 in "$here"/run/*.sock) set -- "$(basename "$1" .sock)" ;; esac
  case $STRATEGY-$UNITS:$1 in
    http-check-one: | reload-one:)
      pidfile=$here/gunicorn.pid mark=$here/gunicorn.conf.py bind=
      return ;;
    port-flip-port:800[01] | backup-port:800[01])
      # Resolved now: a worker that is replaced later comes from the same release.
      dir=$(readlink -f "$here/srv/current") bind=$HOST:$1 ;;
    backup-socket:live | backup-socket:backup)
      dir=$(readlink -f "$here/srv/current") bind=unix:$here/run/$1.sock ;;
    socket-flip-release:?*)
      dir=$here/srv/releases/$1 bind=unix:$here/run/$1.sock ;;
    *) usage ;;
  esac
  pidfile=$here/run/$1.pid mark=$here/run/$1.pid
}

# The master's pid, if the pid file names a process that is this unit's gunicorn and no zombie.
master() {
  [ -r "$pidfile" ] && read -r pid <"$pidfile" && [ -r "/proc/$pid/cmdline" ] || return 1
  grep -qF "$mark" "/proc/$pid/cmdline" 2>/dev/null
}

# A zombie does not run: where nothing reaps orphans, it would be waited for for ever.
running() {
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  case ${stat##*) } in [ZX]*) return 1 ;; esac
}

# TERM: gunicorn stops listening, finishes what it has, ends. Returns when it is gone.
stop() {
  master || return 0
  kill -TERM "$pid" 2>/dev/null
  tries=1500
  while running "$pid"; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { echo "$NODE: gunicorn $pid still runs 30 s after TERM" >&2; return 1; }
    sleep 0.02
  done
}

# Returns when the new master runs; whether the release answers is the health page's business.
start() {
  if master; then echo "$NODE: gunicorn $pid already runs"; return 0; fi
  rm -f "$pidfile"
  if [ -n "$bind" ]; then
    [ -d "$dir" ] || { echo "$NODE: no release in $dir" >&2; return 1; }
    set -- --bind "$bind" --chdir "$dir" --pid "$pidfile" --name "$pidfile"
  else
    set --
  fi
  if [ "$START" = resolved ]; then cd -P "$here/srv/current"; else cd "$here"; fi || return 1
  "$PYTHON" -m gunicorn --config "$here/gunicorn.conf.py" "$@" || return 1
  tries=500
  until master; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { echo "$NODE: gunicorn did not start within 10 s; see $here/gunicorn.log" >&2; return 1; }
    sleep 0.02
  done
}

# The names of the units that have a pid file.
known() {
  for file in "$here"/run/*.pid; do
    [ -e "$file" ] && basename "$file" .pid
  done
}

# The names of the units that a restart starts.
wanted() {
  case $STRATEGY-$UNITS in
    port-flip-port) sed -n 's/.*default "[^"]*:\([0-9]*\)".*/\1/p' "$here/upstream.conf" ;;
    backup-port) echo 8001 8000 ;;
    backup-socket) echo backup live ;;
    socket-flip-release) basename "$(readlink "$here/srv/current")" ;;
  esac
}

restart() {
  if [ "$UNITS" = one ]; then unit "" && stop && start; return; fi
  for name in $(known); do unit "$name" && stop || return 1; done
  for name in $(wanted); do unit "$name" && start || return 1; done
  [ "$STRATEGY" = socket-flip ] || return 0
  ln -sfn "$name.sock" "$here/run/new" && mv -T "$here/run/new" "$here/run/current.sock"
}

status() {
  if master; then echo "$NODE: gunicorn $pid runs${1:+ ($1)}"; else echo "$NODE:${1:+ $1} stopped"; return 3; fi
}

case ${1-} in
  start | stop) unit "${2-}"; "$1" ;;
  restart) restart ;;
  status) unit "${2-}"; status "${2-}" ;;
  *) usage ;;
esac
