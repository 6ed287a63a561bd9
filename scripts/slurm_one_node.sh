#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, for tests: Debian, root, loopback only, no systemd.
#
#   scripts/slurm_one_node.sh up   [FOLDER]    install what is missing, start everything, show `sinfo`
#   scripts/slurm_one_node.sh down [FOLDER]    stop what `up` started and remove what it wrote
#
# FOLDER keeps state and logs (default /tmp/genopt-slurm). Both are safe to repeat.
# Accounting is on (slurmdbd on MariaDB): without it `sacct` cannot say what became of a killed job.
set -euo pipefail

folder=$(realpath -m "${2:-/tmp/genopt-slurm}")
host=$(hostname -s)
mark="# written by genopt's slurm_one_node.sh"
port=33306
packages=(slurmctld slurmd slurmdbd slurm-client munge mariadb-server)

say() { echo "slurm_one_node: $*" >&2; }
stop_with() { say "$*"; exit 1; }
answers() { timeout 5 sinfo -h -o %T 2>/dev/null | grep -qE 'idle|mixed|alloc'; }
wait_for() { # SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || stop_with "$what did not start; see $folder/log"
    sleep 0.3
  done
}

install_packages() {
  local program missing=0
  for program in slurmctld slurmd slurmdbd sbatch munged mariadbd; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || missing=1
  done
  ((missing)) || return 0
  command -v apt-get >/dev/null || stop_with "needs Debian's packages ${packages[*]}"
  # the packages would start services of their own
  local policy=/usr/sbin/policy-rc.d own=0
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    own=1
  fi
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
    --no-install-recommends "${packages[@]}"; } >"$folder/log/apt.log" 2>&1 ||
    { ((own)) && rm -f "$policy"; stop_with "the packages cannot be installed; see $folder/log/apt.log"; }
  if ((own)); then rm -f "$policy"; fi
}

write_settings() {
  local file
  mkdir -p /etc/slurm
  for file in slurm.conf slurmdbd.conf; do
    if [ -e "/etc/slurm/$file" ] && ! grep -qF "$mark" "/etc/slurm/$file"; then
      stop_with "/etc/slurm/$file belongs to another cluster: it stays as it is"
    fi
  done
  install -m 600 /dev/stdin /etc/slurm/slurmdbd.conf <<EOF
$mark
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
CommunicationParameters=NoInAddrAny
SlurmUser=root
LogFile=$folder/log/slurmdbd.log
PidFile=$folder/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$port
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
EOF
  # OverSubscribe lets four jobs share a core: tests need several at once on a small machine
  cat >/etc/slurm/slurm.conf <<EOF
$mark
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmdSpoolDir=$folder/spool
StateSaveLocation=$folder/state
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
JobAcctGatherType=jobacct_gather/none
MinJobAge=300
KillWait=10
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(($(free -m | awk '/^Mem/{print $2}') * 8 / 10)) State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
EOF
}

start_database() {
  local socket=$folder/db/s.sock
  if ! mariadb -S "$socket" -u root -e 'select 1' >/dev/null 2>&1; then
    if [ ! -d "$folder/db/mysql" ]; then
      runuser -u mysql -- mariadb-install-db --datadir="$folder/db" \
        --auth-root-authentication-method=normal >"$folder/log/db.log" 2>&1
    fi
    setsid runuser -u mysql -- mariadbd --no-defaults --datadir="$folder/db" --socket="$socket" \
      --pid-file="$folder/db/pid" --port=$port --bind-address=127.0.0.1 \
      --innodb-buffer-pool-size=64M >>"$folder/log/db.log" 2>&1 </dev/null &
    wait_for 60 "MariaDB" mariadb -S "$socket" -u root -e 'select 1'
  fi
  mariadb -S "$socket" -u root <<'EOF'
create database if not exists slurm_acct_db;
create user if not exists 'slurm'@'localhost' identified by 'slurm';
create user if not exists 'slurm'@'127.0.0.1' identified by 'slurm';
grant all on slurm_acct_db.* to 'slurm'@'localhost';
grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1';
EOF
}

start_munge() {
  pgrep -x munged >/dev/null && return
  mkdir -p /run/munge /var/log/munge
  chown munge: /run/munge /var/log/munge
  chmod 755 /run/munge
  runuser -u munge -- munged
  touch "$folder/munge.ours"
}

running() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

up() {
  if answers; then
    say "a cluster answers already"
    sinfo
    return
  fi
  getent hosts "$host" >/dev/null ||
    stop_with "this machine's own name does not resolve: add '127.0.0.1 $host' to /etc/hosts"
  mkdir -p "$folder"/{state,spool,log,db}
  chmod 755 "$folder"
  install_packages
  chown mysql: "$folder/db"
  write_settings
  start_munge
  start_database
  running "$folder/slurmdbd.pid" || slurmdbd
  wait_for 60 slurmdbd sacctmgr -n list cluster
  sacctmgr -n list cluster | grep -qw one || sacctmgr -iQ add cluster one >/dev/null
  running "$folder/slurmctld.pid" || slurmctld
  running "$folder/slurmd.pid" || slurmd
  wait_for 60 "the node" answers
  sinfo
}

end() { # PIDFILE: stop a process that `up` started, and wait until it is gone
  running "$1" || return 0
  local pid
  pid=$(cat "$1")
  kill "$pid"
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
}

down() {
  local file
  if [ -s "$folder/slurmctld.pid" ]; then
    timeout 5 scancel --full --user=root 2>/dev/null || true
  fi
  for file in slurmd slurmctld slurmdbd db/; do
    end "$folder/${file/%\//\/}$([[ $file == */ ]] && echo pid || echo .pid)"
  done
  if [ -e "$folder/munge.ours" ]; then end /run/munge/munged.pid; fi
  for file in slurm.conf slurmdbd.conf; do
    if grep -qsF "$mark" "/etc/slurm/$file"; then rm -f "/etc/slurm/$file"; fi
  done
  rm -rf "$folder"
}

case "${1:-}" in
  up | down) ;;
  *) stop_with "usage: $0 up|down [FOLDER]" ;;
esac
[ "$(id -u)" = 0 ] || stop_with "needs root: it starts munge, MariaDB and Slurm's daemons"
"$1"
