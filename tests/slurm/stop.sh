#!/bin/bash
# Ends the daemons that start.sh started with the same folder, and with them their jobs.
folder=$(realpath "${1:?give the folder that start.sh was given}")
export SLURM_CONF=$folder/slurm.conf
scancel --user="$(id -un)" 2>/dev/null
for _ in $(seq 120); do
    [ -z "$(squeue -h 2>/dev/null)" ] && break
    sleep 0.5
done
for file in "$folder"/slurmd.pid "$folder"/slurmctld.pid; do
    [ -s "$file" ] || continue
    daemon=$(cat "$file")
    kill "$daemon"
    for _ in $(seq 40); do
        ps -o stat= -p "$daemon" | grep -q '^[^Z]' || break
        sleep 0.25
    done
done
[ -e "$folder/munge_is_ours" ] && kill "$(cat /run/munge/munged.pid)" && rm "$folder/munge_is_ours"
exit 0
