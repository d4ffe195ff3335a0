// Command node is every program of the test cluster's node in one binary, chosen by the name it is called by, as they share
// most of their code: one link instead of nine, and one copy in memory. (kubectl and helm are binaries of their own: their
// start counts, as tests call them often, and starting this one takes twice as long.)
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/coredns/coredns/coremain"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"mirrord.dev/e2e/cluster/loadbalancer"
	"mirrord.dev/e2e/cluster/networkpolicies"
	"mirrord.dev/e2e/cluster/pki"

	// The plugins of CoreDNS that the Corefile (node.sh) uses.
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

var programs = map[string]func(){
	"cluster-pki":             component(pki.NewCommand),
	"coredns":                 coremain.Run,
	"etcd":                    func() { etcdmain.Main(os.Args) },
	"kube-apiserver":          component(apiserver.NewAPIServerCommand),
	"kube-controller-manager": component(controllermanager.NewControllerManagerCommand),
	"kube-proxy":              component(proxy.NewProxyCommand),
	"kube-scheduler":          component(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubelet":                 component(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"loadbalancer":            component(loadbalancer.NewCommand),
	"networkpolicies":         component(networkpolicies.NewCommand),
}

func main() {
	name := filepath.Base(os.Args[0])
	program, known := programs[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s: call me as one of %v\n", name, slices.Sorted(maps.Keys(programs)))
		os.Exit(2)
	}
	program()
}

func component(newCommand func() *cobra.Command) func() {
	return func() { os.Exit(cli.Run(newCommand())) }
}
