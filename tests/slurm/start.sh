#!/bin/bash
# Starts a Slurm of one node on this machine, for tests: as root, with Debian's packages slurm-wlm and munge.
# It needs neither systemd nor cgroups, so it runs in a container.
#
#   tests/slurm/start.sh FOLDER     waits until the node is idle; FOLDER takes configuration, state and logs
#   export SLURM_CONF=FOLDER/slurm.conf PATH=$PWD/tests/slurm/bin:$PATH
#   tests/slurm/stop.sh FOLDER
#
# SLURM_CPUS: how many jobs run at once (2).
# SLURM_PORT: the first of two ports (16817).
# SLURM_PREEMPTION: preempt_send_user_signal (the default), or nothing: then a job that has to make way gets
# SIGTERM.
set -euo pipefail

folder=$(realpath -m "${1:?give a folder for configuration, state and logs}")
here=$(cd "$(dirname "$0")" && pwd)
host=$(hostname -s)
mkdir -p "$folder"/controller "$folder"/node

start_munge() {  # it insists on a user, folders and modes of its own
    mkdir -p /run/munge /var/log/munge /var/lib/munge
    [ -s /etc/munge/munge.key ] || (umask 077; head -c 1024 /dev/urandom > /etc/munge/munge.key)
    chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
    chmod 400 /etc/munge/munge.key
    chmod 755 /run/munge
    runuser -u munge -- /usr/sbin/munged
    touch "$folder/munge_is_ours"
}

munge -n 2>/dev/null | unmunge >/dev/null 2>&1 || start_munge
sed -e "s|@HOST@|$host|g" -e "s|@FOLDER@|$folder|g" -e "s|@CPUS@|${SLURM_CPUS:-2}|g" \
    -e "s|@PORT@|${SLURM_PORT:-16817}|g" -e "s|@NEXT_PORT@|$((${SLURM_PORT:-16817} + 1))|g" \
    -e "s|@MEMORY@|$(free -m | awk '/^Mem/ {print int($2 * 0.9)}')|g" \
    -e "s|@PREEMPTION@|${SLURM_PREEMPTION-preempt_send_user_signal}|g" -e '/^SlurmctldParameters=$/d' \
    "$here/slurm.conf" > "$folder/slurm.conf"
export SLURM_CONF=$folder/slurm.conf
/usr/sbin/slurmctld -L "$folder/slurmctld.log"
/usr/sbin/slurmd -L "$folder/slurmd.log" -N "$host"

for _ in $(seq 60); do
    case $(sinfo -h -p low -o %T 2>/dev/null) in
        idle) exit 0;;
        down*|drain*|unk*) scontrol update nodename="$host" state=resume 2>/dev/null || true;;
    esac
    sleep 0.5
done
sinfo
echo "The node did not become idle within 30 s; see the logs in $folder." >&2
exit 1
