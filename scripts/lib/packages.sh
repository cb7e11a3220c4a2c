# Fetching from package registries, each by its ordinary client, each file held to a hash. Sourced after common.sh.

# pip_fetch DIR NAME==VERSION SHA256 [PIP OPTIONS...]: one wheel or source archive into DIR.
pip_fetch() {
	local dir=$1 requirement=$2 sha=$3
	shift 3
	local pins
	pins=$(mktemp)
	echo "$requirement --hash=sha256:$sha" >"$pins"
	if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes "$@" -d "$dir" -r "$pins"; then
		rm -f "$pins"
		return 1
	fi
	rm -f "$pins"
}

# deb_fetch DIR PACKAGE: a binary package's archive, without installing it. apt checks it against the signed index.
deb_fetch() {
	(cd "$1" && apt-get -qq download -o APT::Sandbox::User=root "$2")
}

# deb_source_fetch DIR PACKAGE: the upstream archive of a source package. The system's own lists are left alone: its
# sources are asked for under another folder, with deb-src switched on.
deb_source_fetch() {
	local state sources
	state=$(mktemp -d)
	mkdir -p "$state/lists/partial"
	sources=$state/sources.list
	apt-get indextargets --format \
		'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(REPO_URI) $(RELEASE) $(COMPONENT)' \
		'Created-By: Packages' 'Origin: Debian' | sort -u >"$sources"
	local options=(-o Dir::Etc::sourcelist="$sources" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::Lists="$state/lists"
		-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
	if ! apt-get -qq "${options[@]}" update ||
		! (cd "$1" && apt-get -qq "${options[@]}" source --download-only --tar-only "$2" 2>"$state/err"); then
		cat "$state/err" >&2 2>/dev/null || true
		rm -rf "$state"
		return 1
	fi
	rm -rf "$state"
}

# torchvision_source DIR: clips and label names that registries carry nowhere else.
torchvision_source() {
	deb_source_fetch "$1" pytorch-vision &&
		echo "ced67e1cf1f97e168cdf271851a4d0b6d382ab7936e7bcbb39aaa87239c324b6  $(ls "$1"/*.orig.tar.gz)" | sha256sum --quiet -c -
}
