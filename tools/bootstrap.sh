#!/usr/bin/env bash
# Brings $VENV to exactly what $LOCK says, then installs the project into it, editable.
# make calls it when the stamp for this lock is absent; running it again on a good environment takes a few seconds.
#
# Reads PYTHON VENV LOCK STAMP VARIANT from make.  For the person at the keyboard:
#   PIP_INDEX_URL, PIP_FIND_LINKS   where packages come from, as for pip
#   TORCH_CPU_INDEX                 a mirror of PyTorch's CPU wheels
#   USE_UV=0                        install with pip alone (about four times slower)
set -euo pipefail
say() { echo "bootstrap: $*" >&2; }
die() { say "$*"; exit 1; }
TORCH_CPU_INDEX=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}

# --- is this a machine the lock can be installed on?
[ -n "${PYTHON:-}" ] || die "needs CPython 3.11, 3.12 or 3.13 with the venv module; found $(python3 --version 2>&1 || echo none), or its venv module is absent. Debian and Ubuntu: apt-get install python3-venv. Another interpreter: make PYTHON=/path/to/python3.11"
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
  die "PYTHON=$PYTHON is $("$PYTHON" --version 2>&1); allowed are CPython 3.11, 3.12 and 3.13"
[ "$(uname -sm)" = "Linux x86_64" ] || die "the lock covers Linux x86_64 only, this is $(uname -sm); use a container or a Linux machine"
[ -f "$LOCK" ] || die "VARIANT=$VARIANT has no lock $LOCK; allowed are cpu and cuda"
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}') || true
[ "$(printf '%s\n' 2.31 "${glibc:-0}" | sort -V | head -n 1)" = 2.31 ] || die "needs glibc 2.31 or newer (Debian 11, Ubuntu 20.04), found ${glibc:-another libc}"
[ "$VARIANT" != cpu ] || grep -qw avx2 /proc/cpuinfo || die "the CPU build of vLLM needs AVX2, which this CPU does not have"
if [ "$VARIANT" = cpu ] && ! "$PYTHON" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; then
  die "the CPU build of vLLM needs libnuma.so.1. Debian and Ubuntu: apt-get install libnuma1"
fi

mkdir -p "$VENV"
exec 9>"$VENV/.bootstrap.lock"  # not $VENV/.lock: uv locks that one itself
flock 9
[ ! -e "$STAMP" ] || exit 0  # another make was here first
rm -f "$VENV"/.ready-*

# --- the interpreter: kept when it is the right version and the last install came to its end
py=$VENV/bin/python
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
if [ -e "$VENV/.installing" ] || [ "$(version_of "$py")" != "$(version_of "$PYTHON")" ] || ! "$py" -m pip --version >/dev/null 2>&1; then
  say "creating $VENV with $("$PYTHON" --version)"
  find "$VENV" -mindepth 1 -maxdepth 1 ! -name .bootstrap.lock -exec rm -rf {} +
  "$PYTHON" -m venv "$VENV" || die "$PYTHON -m venv failed. Debian and Ubuntu: apt-get install python3-venv"
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# a find-links folder with a +cpu wheel outranks the plain version that the CUDA lock asks for
[ "$VARIANT" = cpu ] || export PIP_FIND_LINKS='' UV_FIND_LINKS=''
pip() { "$py" -m pip install -qq --no-deps --only-binary :all: "$@"; }
diff_lock() { "$py" tools/venv_diff.py "$1" "$LOCK"; }
todo=$VENV/.todo

diff_lock stale >"$todo"
if [ -s "$todo" ]; then
  say "removing $(wc -l <"$todo") packages that are not in $LOCK"
  xargs "$py" -m pip uninstall -qq -y <"$todo"
fi

# --- torch: the CPU build is in no default index, so the configured sources first, PyTorch's own second
diff_lock missing >"$todo"
torch=$(grep -E '^torch==' "$todo" || true)
if [ -n "$torch" ]; then
  need=$([ "$VARIANT" = cpu ] && echo 6 || echo 14)
  free=$(df -Pk "$VENV" | awk 'NR == 2 {print int($4 / 1048576)}')
  [ "$free" -ge "$need" ] || die "needs about $need GiB free for $VENV, $free GiB are left"
fi
if [ -n "$torch" ] && [ "$VARIANT" = cpu ]; then
  say "installing $torch"
  touch "$VENV/.installing"
  if ! pip "$torch" 2>"$VENV/torch.err"; then
    say "not in the configured package sources; trying $TORCH_CPU_INDEX"
    PIP_RETRIES=2 pip --index-url "$TORCH_CPU_INDEX" "$torch" || {
      cat "$VENV/torch.err" >&2
      die "no $torch. Put the wheel in a folder and set PIP_FIND_LINKS, or set TORCH_CPU_INDEX to a mirror of PyTorch's CPU index"
    }
  fi
  rm -f "$VENV/.installing"
  diff_lock missing >"$todo"
fi

# --- the rest.  uv is several times faster; it does not read pip's settings, so they are passed on, and pip is the second try
install_with_uv() {
  [ "${USE_UV:-1}" = 1 ] || return 1
  pip "$(grep -E '^uv==' "$LOCK")" || return 1
  local index links
  index=${PIP_INDEX_URL:-$("$py" -m pip config get global.index-url 2>/dev/null || true)}
  [ -z "$index" ] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
  links=${PIP_FIND_LINKS-$("$py" -m pip config get global.find-links 2>/dev/null || true)}
  [ -z "$links" ] || export UV_FIND_LINKS=${UV_FIND_LINKS:-$(tr -s ' \n' , <<<"$links" | sed 's/^,//; s/,$//')}
  "$py" -m uv pip install -q --no-deps --no-build --python "$py" -r "$todo"
}
if [ -s "$todo" ]; then
  say "installing $(wc -l <"$todo") locked packages from $LOCK"
  touch "$VENV/.installing"  # a killed install leaves half packages that look whole: the next run starts over
  install_with_uv || { say "installing with pip"; pip -r "$todo"; }
  rm -f "$VENV/.installing"
  diff_lock missing >"$todo"
  [ ! -s "$todo" ] || die "installed, but not at the locked versions: $(tr '\n' ' ' <"$todo")"
fi

"$py" -m pip install -qq --no-deps --no-build-isolation -e .
"$py" -c 'import torch, transformers' || die "installed, but torch or transformers does not import"
rm -f "$todo" "$VENV/torch.err"
touch "$STAMP"
say "ready: $VENV ($VARIANT)"
