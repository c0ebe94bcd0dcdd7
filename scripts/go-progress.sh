# For scripts that build with Go, to be sourced.
#
# go_build ARGUMENTS...: builds, and shows on standard error how far it has come: on a terminal one line
# that counts, elsewhere a line for each hundred packages. Go itself is silent for minutes.
# TOTAL, about how many packages there are, may be set beforehand.

go_build() {
    local status=0
    # -v names a package when it is compiled. A pipe, since its end is waited for: the last words must be there before
    # the caller's next ones.
    { (set -o pipefail; nice go build -v "$@" 2>&1 >&3 | go_progress) || status=$?; } 3>&1
    return $status
}

go_progress() {
    local line fetched=0 compiled=0 shown=''
    while IFS= read -r line; do
        case $line in
            'go: downloading '*) fetched=$((fetched + 1)) ;;
            # The path of a package has no blank and begins with no "#"; everything else is for people.
            *' '* | '#'*) echo "$line" >&2 && continue ;;
            *) compiled=$((compiled + 1)) ;;
        esac
        shown="go: $fetched modules fetched, $compiled${TOTAL:+ of about $TOTAL} packages compiled"
        if [ -t 2 ]; then
            printf '\r%s' "$shown" >&2
        elif [ $(((fetched + compiled) % 100)) = 0 ]; then
            echo "$shown" >&2
        fi
    done
    if [ -t 2 ] && [ -n "$shown" ]; then echo >&2; fi
}
