#!/bin/sh
# The steps of deploy/docker/Dockerfile as a script, so that they can be run and tested where no container engine is.
#   build-steps.sh install            fetch the pinned Node and pnpm, install with the frozen lock file
#   build-steps.sh build              type-check and write packages/*/dist
#   build-steps.sh assemble SERVICE FOLDER   lay out what one service needs at run time
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd -P)
cache="${MOEVIE_CACHE:-$root/.cache}"
export TURBO_TELEMETRY_DISABLED=1 DO_NOT_TRACK=1
cd "$root"
case "${1:-}" in
  install) exec ./moevie pnpm --version ;;
  build) exec ./moevie pnpm build ;;
  assemble)
    [ $# -eq 3 ] || { echo "usage: build-steps.sh assemble SERVICE FOLDER" >&2; exit 2; }
    exec "$cache/node/bin/node" deploy/docker/assemble.mjs "$2" "$3" ;;
  *) echo "usage: build-steps.sh install | build | assemble SERVICE FOLDER" >&2; exit 2 ;;
esac
