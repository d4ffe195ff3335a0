// Package networkpolicies enforces NetworkPolicies on the node: kube-router's controller for them and nothing else of it,
// since kube-proxy and the ptp plugin do the rest here. It writes iptables rules and ipsets of the node's own network
// namespace. A pod that no policy selects is left alone.
package networkpolicies

import (
	"context"
	"sync"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// NewCommand returns the `networkpolicies` command.
func NewCommand() *cobra.Command {
	var kubeconfig, node, services string
	command := &cobra.Command{
		Use:          "networkpolicies",
		Short:        "Enforces NetworkPolicies on a node",
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			return run(genericapiserver.SetupSignalContext(), kubeconfig, node, services)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the cluster")
	command.Flags().StringVar(&node, "node", "", "the name of the node")
	command.Flags().StringVar(&services, "services", "", "the addresses of Services, as a prefix")
	return command
}

func run(ctx context.Context, kubeconfig, node, services string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		return err == nil, nil
	}); err != nil {
		return nil // told to end
	}

	settings := options.NewKubeRouterConfig()
	settings.HostnameOverride = node
	settings.ClusterIPCIDRs = []string{services}
	settings.EnableIPv4 = true
	settings.EnableIPv6 = false

	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	iptables, ipsets, err := netpol.NewIPTablesHandlers(settings)
	if err != nil {
		return err
	}
	controller, err := netpol.NewNetworkPolicyController(client, settings, pods, policies, namespaces, &sync.Mutex{}, iptables, ipsets)
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if _, err := pods.AddEventHandler(controller.PodEventHandler); err != nil {
		return err
	}
	if _, err := namespaces.AddEventHandler(controller.NamespaceEventHandler); err != nil {
		return err
	}
	if _, err := policies.AddEventHandler(controller.NetworkPolicyEventHandler); err != nil {
		return err
	}
	klog.InfoS("Enforcing network policies", "node", node)

	// The controller's heartbeats, which it waits to get rid of.
	heartbeats := make(chan *healthcheck.ControllerHeartbeat, 1)
	go func() {
		for range heartbeats {
		}
	}()
	var running sync.WaitGroup
	running.Add(1)
	controller.Run(heartbeats, ctx.Done(), &running)
	running.Wait()
	return nil
}
