# The distribution's packages, installed only when something that we need is missing.

POLICY=/usr/sbin/policy-rc.d
POLICY_MARK='# Made by ./dev of session-invite while it installs packages'

# The words before a command that only root may run, for need_root and what comes after it.
AS_ROOT=()
if ((EUID)); then
    AS_ROOT=(sudo --non-interactive)
fi

# need_root WHAT: a background process has no terminal to ask a password on.
need_root() {
    "${AS_ROOT[@]}" true 2>/dev/null || fail "$1 needs root, or a sudo that asks for no password"
}

# need_package FILE_OR_COMMAND PACKAGE…: nothing when it is there.
need_package() {
    local wanted=$1
    shift
    compgen -G "$wanted" >/dev/null || command -v "$wanted" >/dev/null && return 0
    install_packages "$@"
}

install_packages() {
    command -v apt-get >/dev/null || fail "$* missing, and there is no apt-get here to install it with"
    local -a root=()
    if ((EUID)); then
        command -v sudo >/dev/null || fail "$* missing: install it, or run this as root or with sudo"
        root=(sudo)
    fi
    say "Installing $* (apt-get)"
    local log=$DEV_DIR/apt.log
    mkdir -p "$DEV_DIR"
    if ! "${root[@]}" env POLICY="$POLICY" POLICY_MARK="$POLICY_MARK" \
        bash scripts/install-quietly "$@" >"$log" 2>&1; then
        tail -n 5 "$log" | sed 's/^/    /' >&2
        fail "apt-get could not install $* (all of it: $log)"
    fi
}

# What a build needs besides cargo: the linker and C compiler, and certificates to fetch crates with.
need_build_tools() {
    command -v cargo >/dev/null || fail "cargo is missing: https://rustup.rs"
    need_package cc gcc libc6-dev
    need_package /etc/ssl/certs/ca-certificates.crt ca-certificates
}
