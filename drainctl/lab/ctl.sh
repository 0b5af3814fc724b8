#!/bin/sh
# ctl start|stop|restart|status: the service command of one node of the lab.
# node.env next to this file names the programs and paths. Exit code 0: done (status: it runs).
set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 2
. "$here/node.env"
export DRAINCTL_LAB PYTHONDONTWRITEBYTECODE=1
pidfile=$here/gunicorn.pid

# The master's pid, if the pid file names a process that is this node's gunicorn and no zombie.
master() {
  [ -r "$pidfile" ] && read -r pid <"$pidfile" && [ -r "/proc/$pid/cmdline" ] || return 1
  grep -qF "$here/gunicorn.conf.py" "/proc/$pid/cmdline" 2>/dev/null
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
  cd "$here" || return 1
  "$PYTHON" -m gunicorn --config "$here/gunicorn.conf.py" || return 1
  tries=500
  until master; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { echo "$NODE: gunicorn did not start within 10 s; see $here/gunicorn.log" >&2; return 1; }
    sleep 0.02
  done
}

case ${1-} in
  start) start ;;
  stop) stop ;;
  restart) stop && start ;;
  status) if master; then echo "$NODE: gunicorn $pid runs"; else echo "$NODE: stopped"; exit 3; fi ;;
  *) echo "usage: $0 start|stop|restart|status" >&2; exit 2 ;;
esac
