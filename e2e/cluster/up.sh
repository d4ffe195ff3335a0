#!/usr/bin/env bash
# Brings the test cluster up, unless it is. Prints the admin's kubeconfig.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

main() {
  lock
  if is_up; then
    [[ $(<"$state/recipe") == "$recipe_hash" ]] ||
      echo "The cluster that runs was made by an older recipe; down.sh, then up.sh renews it." >&2
  else
    boot
  fi
  printf '%s\n' "$state/admin.kubeconfig"
}

is_up() {
  [[ ! -e $state/failed ]] && node_pid >/dev/null || return 1
  # shellcheck source=/dev/null
  . "$state/addresses.env"
  api_ready
}

boot() {
  ((EUID == 0)) || die "must be root: the node is made of namespaces"
  "$here/down.sh" --locked
  "$here/build.sh" >/dev/null
  local began=$EPOCHREALTIME
  mkdir -p "$log" "$state/bin"
  ln -sf "$bin"/* "$state/bin/"
  echo "$recipe_hash" >"$state/recipe"
  trap stop_half_booted EXIT

  choose_addresses
  # shellcheck source=/dev/null
  . "$state/addresses.env"
  "$bin/cluster-pki" --directory "$state/pki" --server "https://$NODE_ADDRESS:6443" \
    --address "$NODE_ADDRESS" --address "$HOST_ADDRESS" --address 127.0.0.1 --address $apiserver_service
  cp "$state"/pki/{admin,developer}.kubeconfig "$state"

  make_cgroups
  # In a session of its own: a Ctrl-C here doesn't reach it. Whatever our caller left open, such as the lock file of
  # flock(1), isn't the node's to keep.
  (
    close_inherited
    PATH=$bin:$PATH exec setsid unshare --fork --pid --net --mount --propagation private "$here/node.sh" \
      >"$log/node.log" 2>&1 </dev/null
  ) &
  wait_until 5 "the node's first process" node test -s "$state/node.pid"
  ip link add "$host_interface" type veth peer name uplink netns "$(node_pid)"
  ip link set "$host_interface" addrgenmode none
  ip addr add "$HOST_ADDRESS/24" dev "$host_interface"
  ip link set "$host_interface" up

  wait_until 60 "the API server" kube-apiserver api_ready
  kubectl apply -f - >/dev/null <<<"$(dns_manifest)"
  wait_until 30 "the node to be Ready" kubelet \
    kubectl wait --for=condition=Ready node/node --timeout=1s
  wait_until 30 "the default ServiceAccount" kube-controller-manager kubectl get serviceaccount default
  wait_until 30 "CoreDNS" coredns "$here/enter.sh" curl -fsS http://127.0.0.1:8181/ready
  wait_until 30 "kube-proxy" kube-proxy "$here/enter.sh" curl -fsS http://127.0.0.1:10256/healthz
  wait_until 30 "the enforcer of network policies" networkpolicies grep -q "Enforcing network policies" "$log/networkpolicies.log"
  wait_until 30 "the load balancer" loadbalancer grep -q "Watching services" "$log/loadbalancer.log"
  trap - EXIT
  echo "Kubernetes is up after $(elapsed "$began") s" >&2
}

close_inherited() {
  local descriptor
  for descriptor in /proc/self/fd/*; do
    descriptor=${descriptor##*/}
    ((descriptor <= 2)) || eval "exec $descriptor<&-"
  done
}

kubectl() { "$bin/kubectl" --kubeconfig "$state/admin.kubeconfig" "$@"; }

api_ready() {
  [[ $(curl -sS --max-time 5 --cacert "$state/pki/ca.crt" "https://$NODE_ADDRESS:6443/readyz") == ok ]]
}

# A /24 of the range reserved for tests of network devices (RFC 2544), that nothing on the host uses yet: .1 is the host
# (.3 to .127 are free for clients that want their own address), .2 the node, the upper half the load balancer's.
choose_addresses() {
  local start=$((16#$checkout_hash)) try net
  for try in {0..511}; do
    net=198.$((18 + (start + try) / 256 % 2)).$(((start + try) % 256))
    [[ -z $(ip -4 route show root "$net.0/24") ]] && break
  done
  cat >"$state/addresses.env" <<ENV
HOST_ADDRESS=$net.1
NODE_ADDRESS=$net.2
LOAD_BALANCER_POOL=$net.128/25
ENV
}

# The kubelet puts the pods below a control group of ours, which it wants to find: one per controller in version 1.
make_cgroups() {
  local controller
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    mkdir -p "/sys/fs/cgroup/$cgroup"
    return
  fi
  for controller in /sys/fs/cgroup/*/; do
    mkdir -p "$controller$cgroup"
  done
  # A cpuset without processors or memory takes no process.
  for file in cpuset.cpus cpuset.mems; do
    cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset/$cgroup/$file"
  done
}

# CoreDNS runs beside the pods, not in one: its Service names its address.
dns_manifest() {
  cat <<YAML
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: $dns_service
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
endpoints: [{addresses: [$NODE_ADDRESS], conditions: {ready: true}}]
YAML
}

stop_half_booted() {
  trap - EXIT
  "$here/down.sh" --locked --keep-logs
  echo "The logs are in $log" >&2
}

main "$@"
