# What people read: progress on stdout, failures as one line on stderr.

say() { printf '%s\n' "$*"; }

fail() {
    printf 'dev: %s\n' "$*" >&2
    exit 1
}

wrong_usage() {
    printf 'dev: %s (./dev help lists what there is)\n' "$*" >&2
    exit 2
}

# Milliseconds since the epoch.
now_ms() { printf '%s' "$((${EPOCHREALTIME/[.,]/} / 1000))"; }

CURRENT_STEP=""

# step LABEL COMMAND…: runs it in this shell, its output indented under the label, and says how long it took.
# No `||` around the command: that would switch errexit off inside it. The exit trap names the step that failed.
step() {
    local begun took out indenter
    CURRENT_STEP=$1
    shift
    begun=$(now_ms)
    printf '\n— %s\n' "$CURRENT_STEP"
    exec {out}> >(exec sed -u 's/^/    /')
    indenter=$!
    # Closed for the command itself, or a process that it leaves behind would keep the indenter waiting.
    "$@" >&"$out" {out}>&-
    exec {out}>&-
    wait "$indenter"
    took=$(($(now_ms) - begun))
    printf '    (%d.%d s)\n' $((took / 1000)) $((took % 1000 / 100))
    CURRENT_STEP=""
}

without_password() { sed -E 's#://([^:@/]*):[^@]*@#://\1:***@#' <<<"$1"; }

first_line() { printf '%s' "${1%%$'\n'*}"; }

random_word() { head -c 6 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

# 32 random bytes in base64, as SECRETS_KEY wants them.
random_key() { head -c 32 /dev/urandom | base64; }
