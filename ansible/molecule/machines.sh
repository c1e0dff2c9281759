#!/usr/bin/env bash
# Machines for molecule: systemd-nspawn containers that boot their own systemd, each with its own address on a bridge
# of ours. Needs root, systemd-container, iproute2; `image` also debootstrap. Ends and removes what it made, and only that.
#
#   machines.sh lacks                    what this host lacks for them; nothing where it lacks nothing
#   machines.sh image FOLDER             a root file system, once
#   machines.sh up STATE IMAGE NAME IP   boot one; IP ends in .2 or higher of a /24, .1 becomes the host's
#   machines.sh down STATE NAME          power it off and remove it; with the last one the bridge goes
#   machines.sh pid STATE NAME           its process, empty when it is gone
set -euo pipefail
FAMILY=mcpfleet-molecule
# Of control groups of version 1, of both at once, or of version 2 alone: where each machine has groups of its own.
HIERARCHIES=()
for each in systemd unified memory cpu cpuacct pids; do
    if [ -d "/sys/fs/cgroup/$each" ]; then HIERARCHIES+=("/sys/fs/cgroup/$each"); fi
done
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then HIERARCHIES=(/sys/fs/cgroup); fi

lacks() {
    [ "$(id -u)" = 0 ] || { echo "not root"; return; }
    local program
    for program in systemd-nspawn:systemd-container ip:iproute2 debootstrap:debootstrap ssh:openssh-client; do
        command -v "${program%%:*}" >/dev/null || { echo "${program%%:*} (apt-get install ${program#*:})"; return; }
    done
    [ "${#HIERARCHIES[@]}" -gt 0 ] || echo "control groups"
}

image() {
    local folder=$1 draft=$1.draft mirror packages
    [ -e "$folder/etc/os-release" ] && return
    # The mirror that this host uses.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -1)
    rm -rf --one-file-system "$draft"
    mkdir -p "$draft"
    packages=systemd,systemd-sysv,dbus,libpam-systemd,openssh-server,python3,python3-apt,sudo,iproute2,ca-certificates
    debootstrap --variant=minbase --include="$packages" bookworm "$draft" "$mirror" >"$draft.log"
    cp /etc/resolv.conf "$draft/etc/resolv.conf"
    # Downloaded, not installed: installing is the roles' work, and the machines have no way out.
    chroot "$draft" apt-get -q update >>"$draft.log"
    chroot "$draft" apt-get -q install -y -d --no-install-recommends \
        nftables prometheus-node-exporter unattended-upgrades python3-venv redis-server bubblewrap git >>"$draft.log"
    mv "$draft" "$folder"
}

up() {
    local state=$1 image=$2 name=$3 ip=$4 bridge=mf-mol space here
    here=$state/$name
    space=$FAMILY-$name
    local root=$here/root
    mkdir -p "$here"/{upper,work,root}
    [ -e "$state/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$state/key"
    mount -t overlay overlay -o "lowerdir=$image,upperdir=$here/upper,workdir=$here/work" "$root"
    outfit "$root" "$name" "$ip" "$state"
    ip link show "$bridge" >/dev/null 2>&1 || {
        ip link add "$bridge" type bridge
        ip addr add "${ip%.*}.1/24" dev "$bridge"
        ip link set "$bridge" up
    }
    ip netns add "$space"
    ip link add "mfm-$name" type veth peer name host0 netns "$space"
    ip link set "mfm-$name" master "$bridge" up
    ip -n "$space" addr add "$ip/24" dev host0
    ip -n "$space" link set lo up
    ip -n "$space" link set host0 up
    setsid bash -euc '
        for each in "${@:3}"; do
            mkdir -p "$each/$1"
            echo $$ >"$each/$1/cgroup.procs"
        done
        exec systemd-nspawn --quiet --keep-unit --register=no --machine="${1##*/}" --hostname="${1##*/}" \
            --uuid="$(cat /proc/sys/kernel/random/uuid)" --directory="$2/root" --capability=CAP_NET_ADMIN \
            --network-namespace-path="/run/netns/'$FAMILY'-${1##*/}" --boot --console=pipe >"$2/console.log" 2>&1 </dev/null
    ' launch "$FAMILY/$name" "$here" "${HIERARCHIES[@]}" &
    echo $! >"$here/pid"
    disown
}

# What a cloud's first boot does: a name, an address, a user with a key.
outfit() {
    local root=$1 name=$2 ip=$3 state=$4
    echo "$name" >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n%s %s\n' "$ip" "$name" >"$root/etc/hosts"
    # A resolver that does not answer costs every fact and every login seconds.
    : >"$root/etc/resolv.conf"
    rm -f "$root"/etc/ssh/ssh_host_*
    ssh-keygen -A -f "$root" >/dev/null
    chroot "$root" useradd --create-home --shell /bin/bash mcpfleet
    echo 'mcpfleet ALL=(ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/mcpfleet"
    install -d -m 0700 "$root/home/mcpfleet/.ssh"
    cp "$state/key.pub" "$root/home/mcpfleet/.ssh/authorized_keys"
    chroot "$root" chown -R mcpfleet:mcpfleet /home/mcpfleet/.ssh
}

pid() {
    local file=$1/$2/pid
    [ -e "$file" ] && kill -0 "$(cat "$file")" 2>/dev/null && cat "$file" || true
}

processes() {
    local each
    for each in "${HIERARCHIES[@]}"; do
        find "$each/$FAMILY/$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done | sort -u
}

# waits CONDITION SECONDS
waits() {
    local left=$(($2 * 10))
    until eval "$1"; do
        [ $((left -= 1)) -gt 0 ] || return 1
        sleep 0.1
    done
}

down() {
    local state=$1 name=$2 here=$1/$2 process each
    process=$(pid "$state" "$name")
    if [ -n "$process" ]; then
        kill -TERM "$process" # nspawn powers the machine off
        waits "[ -z \"\$(pid '$state' '$name')\" ]" 20 || kill -KILL "$process" || true
    fi
    processes "$name" | xargs -r kill -KILL 2>/dev/null || true
    waits "[ -z \"\$(processes '$name')\" ]" 10
    if mountpoint -q "$here/root"; then umount "$here/root"; fi
    rm -rf --one-file-system "$here"
    for each in "${HIERARCHIES[@]}"; do
        find "$each/$FAMILY/$name" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        rmdir "$each/$FAMILY" 2>/dev/null || true
    done
    if [ -e "/run/netns/$FAMILY-$name" ]; then ip netns del "$FAMILY-$name"; fi
    if ! compgen -G "/run/netns/$FAMILY-*" >/dev/null && ip link show mf-mol >/dev/null 2>&1; then ip link del mf-mol; fi
}

"$@"
