# Functions for the scripts beside this file, which source it in the repository root: they install what scripts/lock/ pins.
# Every file is checked against the hashes there. pip resolves nothing and fetches nothing else: no dependency that is not
# in a file, and what is published as source alone is built by the build tools of scripts/lock/build.txt.

locked_pip() { # PYTHON ARGUMENT...
  local python=$1
  shift
  "$python" -m pip install --disable-pip-version-check --no-deps --no-build-isolation "$@"
}

# install_locked PYTHON NAME...: the packages of scripts/lock/NAME.txt, into the environment of PYTHON.
install_locked() {
  local python=$1 name
  shift
  for name in "$@"; do
    locked_pip "$python" --require-hashes --requirement "scripts/lock/$name.txt" || return
  done
}

# install_edgeformer PYTHON: the package itself, as it stands here. Its build tools have to be installed.
install_edgeformer() {
  locked_pip "$1" --editable . --config-settings=wheel.cmake=false --config-settings=editable.mode=inplace
}
