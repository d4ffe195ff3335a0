#!/usr/bin/env bash
# The node: process 1 of the namespaces that up.sh made (network, mount, process). It shuts the node in, starts every
# program of the cluster and then reaps, until it is killed; the kernel then ends everything in its process namespace, and
# the mounts, addresses and rules made here go with their namespaces. That is why nothing of it is ever undone by hand.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
# shellcheck source=/dev/null
. "$state/addresses.env"

# This bash still sees the host's /proc: it tells our number there, for lib.sh's node_pid.
read -r pid _ </proc/self/stat
printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$state/node.pid"

conf=$state/conf
pki=$state/pki
node_name=node

main() {
  unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy
  trap 'echo "node ended with status $?" >>"$state/failed"' EXIT

  private_mounts
  private_network
  write_configuration

  # A lone member elects itself at the election timeout; nobody waits for its disk, as the state is thrown away.
  start etcd --heartbeat-interval=50 --election-timeout=250 --unsafe-no-fsync --data-dir "$state/etcd" --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
  start containerd --config "$conf/containerd.toml"
  start_apiserver
  import_pause_image &
  wait_until 60 "the API server" kube-apiserver apiserver_ready
  start_after_apiserver
  # Also reaps what process 1 inherits.
  wait
}

# Every write below lands in $state or in memory: the programs keep their well-known paths, the host's folders stay as
# they are.
private_mounts() {
  mount -n -t tmpfs tmpfs /run # first, and -n: mount(8) keeps notes in there
  mount -t proc proc /proc
  mkdir -p "$state"/{containerd,kubelet,pod-logs,programs} /run/{state,var-lib/upper,var-lib/work}
  mount --bind "$state" /run/state
  mount -t overlay -o lowerdir=/var/lib,upperdir=/run/var-lib/upper,workdir=/run/var-lib/work overlay /var/lib
  mount --bind /run/state "$state" # for a checkout below /var/lib
  mkdir -p /var/lib/{containerd,kubelet}
  mount --bind "$state/containerd" /var/lib/containerd
  mount --bind "$state/kubelet" /var/lib/kubelet
  mount --bind "$state/pod-logs" /var/log

  # The kubelet insists on these values of settings that are the whole machine's. It reads them before it writes, so it is
  # shown files that hold what it wants (setupKernelTunables in container_manager_linux.go).
  local setting
  for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    echo "${setting#*=}" >"/run/${setting//\//.}"
    mount --bind "/run/${setting//\//.}" "/proc/sys/${setting%=*}"
  done

  # The kubelet shares volumes with containers made later, so its mounts must propagate (within here).
  mount --make-rshared /
}

# The node has one link, to the host: `uplink`, which up.sh makes.
private_network() {
  ip link set lo up
  wait_until 5 "the link to the host" node ip link show uplink
  ip addr add "$NODE_ADDRESS/24" dev uplink
  ip link set uplink up
  # Answers ARP for every address that `loadbalancer` may give out; kube-proxy forwards those that it did.
  ip route add local "$LOAD_BALANCER_POOL" dev lo
  # There is no default route, so that what is outside is unreachable at once. But the node's own connections to Services
  # (the API server's to webhooks) need some route until kube-proxy rewrites their destination.
  ip route add $services dev uplink src "$NODE_ADDRESS"
  echo 1 >/proc/sys/net/ipv4/ip_forward

  # The host gets in to the API server and to what a LoadBalancer Service forwards (which kube-proxy's dstnat has rewritten
  # by now), nothing else. Pods reach the host, as the world outside, by the node's address.
  nft -f - <<RULES
table inet mirrord {
  chain from_host {
    ct state established,related accept
    ct status dnat ct original ip daddr $LOAD_BALANCER_POOL accept
    meta l4proto tcp reject with tcp reset
    reject
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname uplink ip daddr $NODE_ADDRESS tcp dport 6443 accept
    iifname uplink goto from_host
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname uplink goto from_host
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr $pods oifname uplink masquerade
  }
}
RULES
}

start_apiserver() {
  start kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$NODE_ADDRESS" --secure-port=6443 --service-cluster-ip-range=$services \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged \
    --kubelet-client-certificate="$pki/apiserver-kubelet-client.crt" \
    --kubelet-client-key="$pki/apiserver-kubelet-client.key" --kubelet-preferred-address-types=InternalIP
}

apiserver_ready() { [[ $(curl -sS --cacert "$pki/ca.crt" https://127.0.0.1:6443/readyz) == ok ]]; }

start_after_apiserver() {
  start kube-controller-manager --kubeconfig="$pki/controller-manager.kubeconfig" \
    --leader-elect=false --use-service-account-credentials --kube-api-qps=500 --kube-api-burst=1000 \
    --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt" \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins
  start kube-scheduler --kubeconfig="$pki/scheduler.kubeconfig" --leader-elect=false
  start kube-proxy --config="$conf/kube-proxy.yaml"
  start coredns -conf "$conf/Corefile"
  start loadbalancer --kubeconfig="$pki/admin.kubeconfig" --pool="$LOAD_BALANCER_POOL"
  # The kubelet looks at the container runtime only every 5 s, so it must find it ready at first sight.
  wait_until 30 "the pause image" containerd test -e /run/pause-imported
  start kubelet --config="$conf/kubelet.yaml" --kubeconfig="$pki/kubelet.kubeconfig" \
    --hostname-override=$node_name --node-ip="$NODE_ADDRESS"
  start networkpolicies --kubeconfig="$pki/admin.kubeconfig" --node=$node_name --services=$services
}

import_pause_image() {
  wait_until 30 "the container runtime" containerd ctr version
  ctr -n k8s.io images import "$cache/pause.tar"
  touch /run/pause-imported
}

# start NAME ARGUMENT… runs a program of the node, with a log of its own. Its end is the cluster's failure, which is noted,
# unless it was asked for (restart.sh): then it is started again, with the same arguments, once that is asked for too.
start() {
  local stopped=$state/programs/$1.stopped
  {
    while true; do
      "$@" >>"$log/$1.log" 2>&1 </dev/null &
      echo $! >"$state/programs/$1"
      wait $! || true
      [[ -e $stopped ]] || break
      rm "$state/programs/$1"
      while [[ -e $stopped ]]; do sleep 0.02; done
    done
    echo "$1 has ended" >>"$state/failed"
  } &
}

write_configuration() {
  mkdir -p "$conf/cni"
  # ptp, not bridge: each pod has its own link and every packet between pods is routed, so it passes kube-proxy's rules both
  # ways without br_netfilter, a setting of the whole machine.
  cat >"$conf/cni/10-pods.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": {"type": "host-local",
  "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON

  # overlayfs can't have an upper folder that is itself on an overlay (a checkout in a container).
  local snapshotter=overlayfs
  [[ $(stat -f -c %T "$state") == overlayfs ]] && snapshotter=native
  cat >"$conf/containerd.toml" <<TOML
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
# Without CAP_SYS_RESOURCE a score can't be lowered, and each sandbox would fail for it.
restrict_oom_score_adj = true
# A profile would be loaded into the machine's kernel, and stay there.
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "$snapshotter"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$conf/cni"
TOML

  cat >"$conf/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
# Fails rather than change a setting of the whole machine, should private_mounts miss one.
protectKernelDefaults: true
volumePluginDir: /var/lib/kubelet/volume-plugins
clusterDNS: [$dns_service]
clusterDomain: cluster.local
resolvConf: $conf/resolv.conf
maxPods: 250
serializeImagePulls: false
# Tests kill what runs in pods, several times; doubling pauses up to five minutes would be all that they wait for.
featureGates: {KubeletCrashLoopBackOffMax: true}
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
# A full disk of the machine is no reason to evict pods or to delete images that nobody can pull again.
evictionHard: {nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
YAML

  cat >"$conf/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $pki/proxy.kubeconfig}
hostnameOverride: $node_name
mode: nftables
nftables: {minSyncPeriod: 100ms}
clusterCIDR: $pods
oomScoreAdj: 0
# Leaves the connection tracker's settings alone.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML

  # Names of the world outside get an answer at once (there is none), not after some resolver's time-out.
  cat >"$conf/Corefile" <<COREFILE
cluster.local in-addr.arpa ip6.arpa {
  bind $NODE_ADDRESS
  errors
  ready 127.0.0.1:8181
  kubernetes {
    kubeconfig $pki/admin.kubeconfig mirrord-e2e
  }
}
. {
  bind $NODE_ADDRESS
  template ANY ANY {
    rcode NXDOMAIN
  }
}
COREFILE
  echo "nameserver $NODE_ADDRESS" >"$conf/resolv.conf"
}

main
