#!/bin/sh
# Builds a real kube-apiserver, kubectl, kube-controller-manager and kube-scheduler from Debian's source package
# and packs them as the official archive is laid out. Debian ships no such binaries, and a lab has no other way out.
# usage: kubernetes.sh CACHE_FOLDER    leaves CACHE_FOLDER/kubernetes-server-linux-amd64.tar.gz (and .sha512)
set -eu
cache=$1
archive=$cache/kubernetes-server-linux-amd64.tar.gz
work=$cache/kubernetes-build
mkdir -p "$work/lists/partial" "$work/source"

# The sources come through an apt configuration of our own, so that the machine's stays as it is.
echo 'deb-src http://deb.debian.org/debian bookworm main' > "$work/sources.list"
apt_source() {
  apt-get -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- \
    -o Dir::State::Lists="$work/lists" -o APT::Get::List-Cleanup=0 "$@"
}
for tool in go jq rsync dpkg-source; do
  command -v "$tool" >/dev/null || missing="${missing:-} $tool"
done
if [ -n "${missing:-}" ]; then
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends golang-go jq rsync dpkg-dev
fi

cd "$work/source"
tree=$(find . -mindepth 1 -maxdepth 1 -type d -name 'kubernetes-*' | head -n 1)
if [ -z "$tree" ]; then
  apt_source update
  apt_source source kubernetes
  tree=$(find . -mindepth 1 -maxdepth 1 -type d -name 'kubernetes-*' | head -n 1)
fi
cd "$tree"
tree=$PWD
# This copy of reflect2 calls into Go's runtime, where since Go 1.18 the iterator over a map is passed in and not returned. Unchanged,
# the programs die now and then when they write an object as JSON.
reflect2=vendor/github.com/modern-go/reflect2
if ! grep -q ', it \*hiter' "$reflect2/unsafe_link.go"; then
  sed -i -e 's/^func mapiterinit(rtype unsafe.Pointer, m unsafe.Pointer) \*hiter$/func mapiterinit(rtype unsafe.Pointer, m unsafe.Pointer, it *hiter)/' \
    -e 's/^\t.. rest fields are ignored$/\tpointers [6]unsafe.Pointer\n\tnumbers [5]uintptr/' "$reflect2/unsafe_link.go"
  sed -i -e 's/^\treturn &UnsafeMapIterator{$/\tit := new(hiter)\n\tmapiterinit(type2.rtype, *(*unsafe.Pointer)(obj), it)\n&/' \
    -e 's/mapiterinit(type2.rtype, \*(\*unsafe.Pointer)(obj)),$/it,/' "$reflect2/unsafe_map.go"
fi
mkdir -p .go/src/k8s.io
ln -sfn "$tree" .go/src/k8s.io/kubernetes
cd .go/src/k8s.io/kubernetes
GOPATH=$tree/.go CGO_ENABLED=0 GOFLAGS= GOCACHE=$work/gocache \
  make WHAT="cmd/kube-apiserver cmd/kubectl cmd/kube-controller-manager cmd/kube-scheduler" GOLDFLAGS="-s -w"

pack=$work/pack
rm -rf "$pack"
mkdir -p "$pack/kubernetes/server/bin"
for name in kube-apiserver kubectl kube-controller-manager kube-scheduler; do
  cp "$tree/_output/local/bin/linux/amd64/$name" "$pack/kubernetes/server/bin/$name"
done
version=$("$pack/kubernetes/server/bin/kube-apiserver" --version | sed 's/.* //')
# Six of the official archive's ten programs are not needed by a control plane; stand-ins keep its layout.
for name in apiextensions-apiserver kubeadm kube-aggregator kubelet kube-proxy mounter; do
  printf '#!/bin/sh\necho "%s %s (stand-in of the lab)"\n' "$name" "$version" > "$pack/kubernetes/server/bin/$name"
  chmod 0755 "$pack/kubernetes/server/bin/$name"
done
# What the official archive carries and an operator deletes after unpacking.
for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do
  echo "image of $name" > "$pack/kubernetes/server/bin/$name.tar"
  echo "$version" > "$pack/kubernetes/server/bin/$name.docker_tag"
done
echo "sources of $version" | gzip -n > "$pack/kubernetes/kubernetes-src.tar.gz"
tar -C "$pack" --owner=0 --group=0 --numeric-owner -czf "$archive.part" kubernetes
mv "$archive.part" "$archive"
(cd "$cache" && sha512sum kubernetes-server-linux-amd64.tar.gz > "$archive.sha512")
rm -rf "$work"
