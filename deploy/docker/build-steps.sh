#!/bin/sh
# The steps of deploy/docker/Dockerfile as a script, so that they can be run and tested where no container engine is.
#   build-steps.sh install            fetch the pinned Node and pnpm, install with the frozen lock file
#   build-steps.sh build              type-check and write packages/*/dist
#   build-steps.sh assemble SERVICE FOLDER   lay out what one service needs at run time
#   build-steps.sh cuda-provider FOLDER      fetch the runtime's CUDA provider; needs python3 with pip, x86-64 only
#   build-steps.sh cuda-libraries FOLDER     fetch the libraries of CUDA that it needs, 1.1 GB
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd -P)
cache="${MOEVIE_CACHE:-$root/.cache}"
export TURBO_TELEMETRY_DISABLED=1 DO_NOT_TRACK=1
cd "$root"

# fetch LIST FOLDER: the shared libraries of the wheels in LIST, whatever Python runs this.
fetch() {
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: --target "$scratch" \
    --implementation cp --python-version 3.12 --abi cp312 --abi none \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2010_x86_64 --platform manylinux1_x86_64 --requirement "$root/deploy/docker/$1"
  mkdir -p "$2"
  find "$scratch" -name "$3" -exec cp {} "$2/" \;
}

case "${1:-}" in
  install) exec ./moevie pnpm --version ;;
  build) exec ./moevie pnpm build ;;
  assemble)
    [ $# -eq 3 ] || { echo "usage: build-steps.sh assemble SERVICE FOLDER" >&2; exit 2; }
    exec "$cache/node/bin/node" deploy/docker/assemble.mjs "$2" "$3" ;;
  cuda-provider | cuda-libraries)
    [ $# -eq 2 ] || { echo "usage: build-steps.sh $1 FOLDER" >&2; exit 2; }
    case "$1" in
      cuda-provider) fetch cuda-provider.txt "$2" 'libonnxruntime_providers_[cs][uh]*.so' ;;
      *) fetch cuda-libraries.txt "$2" 'lib*.so.*' ;;
    esac ;;
  *) echo "usage: build-steps.sh install | build | assemble SERVICE FOLDER | cuda-provider FOLDER | cuda-libraries FOLDER" >&2; exit 2 ;;
esac
