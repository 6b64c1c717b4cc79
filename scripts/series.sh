# `--series new`: RabbitMQ 4 and PostgreSQL 17 of Debian 13, under a root directory of their own, where the distribution
# has older ones. Their processes see it, and the machine's /proc, /dev and .dev, in a mount namespace that ends with them:
# nothing is mounted that others see, that a killed run could leave, or that a removal could go through.

NEW_SERIES_DIR=$DEV_DIR/series-new
DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# Where private services are installed, and the words before a command that run it there. The default is the machine.
SERVICE_ROOT=""
WITHIN=()

# From here on, private services are of the new series, and no others are used.
use_new_series() {
    may_use private || wrong_usage "--series new has services of its own, so --services is private with it"
    need_root "--series new"
    [[ -d $NEW_SERIES_DIR ]] || make_new_series
    say "Of Debian 13: $(new_series_versions)"
    SERVICES=private
    SERVICE_ROOT=$NEW_SERIES_DIR
    # The fallback of service_directory is in /var/tmp.
    local -a shared=("$DEV_DIR" /var/tmp /proc /dev) as_ourselves=()
    if ((EUID)); then
        as_ourselves=(setpriv "--reuid=$EUID" "--regid=$(id -g)" --clear-groups)
        # PostgreSQL wants a name for its user.
        shared+=(/etc/passwd)
    fi
    WITHIN=("${AS_ROOT[@]}" unshare --mount bash "$PWD/scripts/within" "$NEW_SERIES_DIR" "${shared[@]}" -- "${as_ourselves[@]}")
}

# Made in the run's directory and moved when complete, so that a run that is killed leaves no half of it.
make_new_series() {
    local made=$RUN_DIR/series-new
    need_package debootstrap debootstrap
    need_package gpgv gpgv
    need_package "$DEBIAN_KEYRING" debian-archive-keyring
    say "Fetching RabbitMQ 4 and PostgreSQL 17 of Debian 13 into ${NEW_SERIES_DIR#"$PWD/"}, which stays (a minute or two)"
    note root-directory "$made"
    # The packages' scripts may start what they install; such a process ends with its namespace.
    start debootstrap "${AS_ROOT[@]}" unshare --mount --pid --fork --kill-child --mount-proc \
        debootstrap --variant=minbase --keyring="$DEBIAN_KEYRING" --include=rabbitmq-server,postgresql-17 \
        trixie "$made" "$(debian_mirror)"
    wait "$STARTED" || {
        tail -n 5 "$RUN_DIR/debootstrap.log" | sed 's/^/    /' >&2
        fail "debootstrap could not make Debian 13"
    }
    "${AS_ROOT[@]}" chroot "$made" apt-get clean
    # Another run may have been quicker.
    "${AS_ROOT[@]}" mv --no-target-directory "$made" "$NEW_SERIES_DIR" 2>/dev/null || [[ -d $NEW_SERIES_DIR ]]
}

# The mirror that this machine's own Debian packages come from. If there is none, nothing, and debootstrap takes its default.
debian_mirror() {
    # shellcheck disable=SC2016 # apt's variable
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null |
        grep --max-count=1 '^https\?:' || true
}

new_series_versions() {
    # shellcheck disable=SC2016 # dpkg's variables
    dpkg-query --admindir="$NEW_SERIES_DIR/var/lib/dpkg" --showformat '${Package} ${Version}\n' \
        --show rabbitmq-server postgresql-17 | paste --serial --delimiters=,
}
