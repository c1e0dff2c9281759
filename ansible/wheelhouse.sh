#!/usr/bin/env bash
# Every wheel that a machine of ours needs, so that it needs no package index: our own, and the locked ones.
# `make wheelhouse` calls it. Writes dist/wheelhouse/ and the same as dist/wheelhouse.tar.
#
#   WHEELHOUSE_PYTHONS  versions of Python on the machines, e.g. "3.11 3.13" (Debian 12 and 13)
#   WHEELHOUSE_ARCH     their architecture, as `uname -m` says it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
pythons=${WHEELHOUSE_PYTHONS:-3.11}
arch=${WHEELHOUSE_ARCH:-$(uname -m)}
whole=dist/wheelhouse
# A fleet may be provisioning from the one that is there: it stays until this one is whole.
out=$whole.draft
uv=.cache/uv/bin/uv

rm -rf "$out" "$out.tar"
mkdir -p "$out"
scratch=$(mktemp -d)
log=$scratch/log
trap 'rm -rf "$scratch"' EXIT
# The SDK has no wheel that we want: its own bring a second Claude Code of 365 MB. Ours is built from its source.
locked=requirements/machines.txt
sdk=claude-agent-sdk
awk -v name="^$sdk==" '/^[^ ]/ { is_it = $0 ~ name } is_it' $locked >"$scratch/sdk.txt"
awk -v name="^$sdk==" '/^[^ ]/ { is_it = $0 ~ name || /^--/ || /^#/ } !is_it' $locked >"$scratch/others.txt"
quietly() { "$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }; }
quietly .venv/bin/python -m hatchling build -t wheel -d "$PWD/$out"

# glibc of Debian 12 is 2.36. pip takes no "or older" here, so each is named.
platforms=()
for minor in $(seq 36 -1 5); do platforms+=(--platform "manylinux_2_${minor}_${arch}"); done
platforms+=(--platform "manylinux2014_${arch}" --platform "linux_${arch}")

# What was downloaded for the same lock and the same machines is taken over; machines check each wheel against its hash.
made_for=$( (echo "$pythons $arch"; cat $locked ansible/wheelhouse.sh) | sha256sum | cut -c1-12)
count() { find "$1" -name '*.whl' ! -name 'mcpfleet-*' | wc -l; }
if [ "$(cat "$whole/.made-for" 2>/dev/null || true)" = "$made_for $(count "$whole" 2>/dev/null || true)" ]; then
    find "$whole" -name '*.whl' ! -name 'mcpfleet-*' -exec cp -l -t "$out" {} +
    cp "$whole/.made-for" "$out/"
    pythons=
fi
if [ -n "$pythons" ]; then
    quietly .cache/uv/bin/python -m pip --python .venv/bin/python wheel --disable-pip-version-check --no-deps \
        --no-build-isolation --no-binary "$sdk" --require-hashes -w "$out" -r "$scratch/sdk.txt"
fi
for python in $pythons; do
    # pip judges markers by the Python it runs on, not by the one it downloads for: a lock made on 3.11.7 leaves out
    # what 3.11.2 needs. uv resolves for the target, and without a patch version for the oldest one.
    quietly "$uv" pip compile --no-deps --no-annotate --no-header --no-emit-index-url --generate-hashes \
        --python-version "$python" --python-platform "${arch}-unknown-linux-gnu" "$scratch/others.txt" -o "$scratch/lock.txt"
    quietly .cache/uv/bin/python -m pip download --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --implementation cp --python-version "$python" "${platforms[@]}" -d "$out" -r "$scratch/lock.txt"
    rm "$scratch/lock.txt"
done

# The machine checks every wheel against this: the lock with all its markers, and those that were built here.
ours=$(cd "$out" && ls mcpfleet-*.whl)
version=${ours#mcpfleet-}
version=${version%%-*}
built() { echo "$1 --hash=sha256:$(sha256sum "$out/$2" | cut -d' ' -f1)"; }
{
    cat "$scratch/others.txt"
    built "$(head -1 "$scratch/sdk.txt" | cut -d' ' -f1)" "$(cd "$out" && ls "${sdk//-/_}"-*.whl)"
    built "mcpfleet==$version" "$ours"
} >"$out/requirements.txt"
# Two builds with the same version differ in it, two with the same content do not.
echo "$version-$(cat "$out/requirements.txt" | sha256sum | cut -c1-12)" >"$out/RELEASE"
[ -e "$out/.made-for" ] || echo "$made_for $(count "$out")" >"$out/.made-for"
tar --exclude=./.made-for --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$out" -cf "$out.tar" .
rm -rf "$whole"
mv "$out.tar" "$whole.tar"
mv "$out" "$whole"
out=$whole
echo "wheelhouse: release $(cat "$out/RELEASE"), $(ls "$out"/*.whl | wc -l) wheels, $(du -h "$out.tar" | cut -f1) in $out.tar"
