#!/usr/bin/env bash
# Shows on the running cluster what the README promises: pods under the restricted standard with a native sidecar, DNS, a
# UDP load balancer that the host reaches, and nothing else that it does. Takes some 10 s.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
export PATH=$state/bin:$PATH KUBECONFIG=$state/admin.kubeconfig
[[ -e $KUBECONFIG ]] || die "the cluster is not up"
# shellcheck source=/dev/null
. "$state/addresses.env"

work=$(mktemp -d)
trap clean_up EXIT
clean_up() {
  ip route flush dev "$host_interface" proto static
  kubectl delete namespace selftest --ignore-not-found --wait=false >/dev/null
  rm -rf "$work"
}
kubectl delete namespace selftest --ignore-not-found

CGO_ENABLED=0 go build -o "$work/server" "$here/selftest/server.go"
buildah --root "$work/images" --runroot "$work/run" --storage-driver vfs bud --quiet --isolation chroot \
  --file "$here/selftest/Dockerfile" --tag localhost/mirrord-selftest:1 "$work" >/dev/null
buildah --root "$work/images" --runroot "$work/run" --storage-driver vfs push --quiet localhost/mirrord-selftest:1 \
  "oci-archive:$work/image.tar:localhost/mirrord-selftest:1"
"$here/load.sh" "$work/image.tar"

began=$EPOCHREALTIME
kubectl apply -f "$here/selftest/manifest.yaml" >/dev/null
kubectl -n selftest rollout status deployment/server --timeout=60s
echo "ok: two pods after $(elapsed "$began") s"

# answered PROTOCOL ADDRESS PORT tells whether anything answers the host.
answered() { [[ $(timeout 1 bash -c "exec 3<>/dev/$1/$2/$3; echo >&3; head -c 1 <&3" 2>/dev/null) ]]; }
reached() { if answered "$@"; then echo "ok: $* answers the host"; else die "$* does not answer the host"; fi; }
shut() { if answered "$@"; then die "$* answers the host"; else echo "ok: $* does not answer the host"; fi; }

kubectl -n selftest wait --for=jsonpath='{.status.loadBalancer.ingress[0].ip}' service/udp --timeout=10s >/dev/null
load_balancer=$(kubectl -n selftest get service udp -o jsonpath='{.status.loadBalancer.ingress[0].ip}')
service=$(kubectl -n selftest get service tcp -o jsonpath='{.spec.clusterIP}')
pod=$(kubectl -n selftest get pods -o jsonpath='{.items[0].status.podIP}')

reached udp "$load_balancer" 443
# Not even with a route to them.
for address in "$service" "$pod"; do
  ip route add "$address" via "$NODE_ADDRESS" dev "$host_interface" proto static
done
shut tcp "$service" 80
shut tcp "$pod" 4433
shut udp "$pod" 4433
for port in 53 2379 10250 10256 10257; do
  shut tcp "$NODE_ADDRESS" "$port"
  shut tcp "$load_balancer" "$port"
done
shut tcp "$load_balancer" 6443
"$here/enter.sh" bash -c "head -c 1 <>/dev/tcp/$service/80" >/dev/null
echo "ok: the Service answers the node"

"$here/restart.sh" kube-scheduler
wait_until 20 "the scheduler" kube-scheduler "$here/enter.sh" curl -fsSk https://127.0.0.1:10259/healthz
echo "ok: a program of the node is started again"

for name in $(kubectl -n selftest get pods -o name); do
  kubectl -n selftest logs "$name" -c server
done
[[ $(kubectl -n selftest logs deployment/server -c server 2>/dev/null) =~ kubernetes.default\ \[10\.96\.0\.1\] ]] || die "no DNS"
[[ $(kubectl auth can-i --list --kubeconfig "$state/developer.kubeconfig" 2>/dev/null) != *pods* ]] || die "developer has rights"
echo "ok: developer has no rights on pods"
