#!/bin/sh
# ctl start|stop|restart|status: the service command of one store machine of the lab.
# node.env next to this file names the programs and paths. Exit code 0: done (status: it runs).
set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 2
. "$here/node.env"
export DRAINCTL_LAB
pidfile=$here/store.pid

# A zombie does not run: where nothing reaps orphans, it would be waited for for ever.
running() {
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  case ${stat##*) } in [ZX]*) return 1 ;; esac
}

# The pid, if the pid file names a process that is this machine's store and no zombie.
store() {
  [ -r "$pidfile" ] && read -r pid <"$pidfile" && running "$pid" || return 1
  grep -qF "$here/store.db" "/proc/$pid/cmdline" 2>/dev/null
}

# TERM: the store stops listening, finishes what it has, ends. Returns when it is gone.
stop() {
  store || return 0
  kill -TERM "$pid" 2>/dev/null
  tries=3500
  while running "$pid"; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { echo "$NODE: store $pid still runs 70 s after TERM" >&2; return 1; }
    sleep 0.02
  done
}

# Returns when it listens: the store writes its pid file then.
start() {
  if store; then echo "$NODE: store $pid already runs"; return 0; fi
  rm -f "$pidfile"
  # What the file leads to is read once, when it starts: a link that is turned later changes nothing.
  setsid "$PYTHON" "$here/srv/current/store.py" --listen "$LISTEN" --peer "$PEER" --file "$here/store.db" \
    --pid "$pidfile" >>"$here/store.log" 2>&1 </dev/null &
  started=$!
  tries=1000
  until store; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { echo "$NODE: the store does not listen after 20 s; see $here/store.log" >&2; return 1; }
    running "$started" || store || { echo "$NODE: the store ended again: $(tail -n 1 "$here/store.log")" >&2; return 1; }
    sleep 0.02
  done
}

case ${1-} in
  start) start ;;
  stop) stop ;;
  restart) stop && start ;;
  status) if store; then echo "$NODE: store $pid runs"; else echo "$NODE: stopped"; exit 3; fi ;;
  *) echo "usage: $0 start|stop|restart|status" >&2; exit 2 ;;
esac
