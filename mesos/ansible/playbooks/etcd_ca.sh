#!/bin/sh
# Makes a CA, and for each host a certificate as a member, one for other members and one as a client. Called by etcd_ca.yml.
set -eu
umask 077
mkdir -p "$DIR"
cd "$DIR"

made() { echo "made $1"; }

if [ ! -f ca-key.pem ]; then
    openssl ecparam -genkey -name prime256v1 -noout -out ca-key.pem.new
    openssl req -x509 -new -sha256 -key ca-key.pem.new -days "$DAYS" -subj "/CN=etcd CA" -out ca.pem 2>/dev/null
    mv ca-key.pem.new ca-key.pem
    made "$DIR/ca.pem"
fi

certificate() { # FOLDER NAME CN ALT-NAMES
    [ ! -f "$1/$2.pem" ] || return 0
    mkdir -p "$1"
    openssl ecparam -genkey -name prime256v1 -noout -out "$1/$2-key.pem"
    openssl req -new -key "$1/$2-key.pem" -subj "/CN=$3" -out "$1/$2.csr" 2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature,keyEncipherment\n' "$4" >"$1/$2.ext"
    openssl x509 -req -sha256 -in "$1/$2.csr" -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days "$DAYS" \
        -extfile "$1/$2.ext" -out "$1/$2.pem.new" 2>/dev/null
    mv "$1/$2.pem.new" "$1/$2.pem"
    rm -f "$1/$2.csr" "$1/$2.ext"
    made "$DIR/$1/$2.pem"
}

printf '%s' "$HOSTS" | tr ';' '\n' | while read -r host user addresses; do
    [ -n "$host" ] || continue
    alt="DNS:localhost,IP:127.0.0.1,DNS:$host"
    for address in $addresses; do
        case $address in
            *[!0-9.]*) case $address in *:*) alt="$alt,IP:$address" ;; *) alt="$alt,DNS:$address" ;; esac ;;
            *) alt="$alt,IP:$address" ;;
        esac
    done
    certificate "$host" server "$host" "$alt"
    certificate "$host" peer "$host" "$alt"
    certificate "$host" client "$user" "DNS:$host"
    certificate "$host" calico-mesos calico-mesos "DNS:$host"
    certificate "$host" calico-node calico-node "DNS:$host"
done
