#!/bin/bash
# prereq.sh SET…: installs from the distribution's packages what SET needs and
# this machine lacks, and says so. The sets: demo, test, bench.
# Services that come with a package are neither started nor enabled: the tests
# run these programs themselves, inside a network namespace of their own.
set -eu

# What each set needs, as command=package.
demo="qbittorrent-nox=qbittorrent-nox"
test="gcc=gcc $demo transmission-daemon=transmission-daemon aria2c=aria2 rtorrent=rtorrent
      deluged=deluged deluge-console=deluge-console biglybt=biglybt java=default-jre-headless redis-server=redis-server chromium=chromium
      ip=iproute2 tcpdump=tcpdump getent=libc-bin tor=tor zsh=zsh fish=fish git=git"
bench="$demo transmission-daemon=transmission-daemon tor=tor"

missing=()
for set in "$@"; do
	case $set in demo | test | bench) ;; *)
		echo "prereq.sh: no set named $set; there are demo, test and bench" >&2
		exit 2
		;;
	esac
	for pair in ${!set}; do
		# Daemons live in sbin, which is not on every user's path.
		if ! PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null; then
			[[ " ${missing[*]-} " == *" ${pair#*=} "* ]] || missing+=("${pair#*=}")
		fi
	done
	# gcc alone can't link the race detector's objects: it needs the C library's headers.
	if [ "$set" = test ] && [ ! -e /usr/include/stdlib.h ]; then missing+=(libc6-dev); fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "prereq.sh: please install: ${missing[*]} (only apt is known here; names are Debian's)" >&2
	exit 1
fi
root=()
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "prereq.sh: please run as root: apt-get install --no-install-recommends ${missing[*]}" >&2
		exit 1
	fi
	root=(sudo)
fi
echo "prereq.sh: installing from the distribution's packages: ${missing[*]}"

# A policy that says no keeps the packages' services from starting now …
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap '"${root[@]}" rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
	"${root[@]}" chmod 755 $policy
fi
log=$(mktemp)
if ! {
	"${root[@]}" apt-get update -q &&
		"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
} </dev/null >"$log" 2>&1; then
	cat "$log" >&2
	echo "prereq.sh: apt-get failed, see above; its output is in $log" >&2
	exit 1
fi
rm -f "$log"
# … and this from starting at the next boot.
if command -v systemctl >/dev/null; then
	for package in "${missing[@]}"; do
		case $package in transmission-daemon | redis-server | tor | deluged)
			"${root[@]}" systemctl disable "$package" >/dev/null 2>&1 || true
			;;
		esac
	done
fi
