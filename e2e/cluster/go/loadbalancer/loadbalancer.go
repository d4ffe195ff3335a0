// Package loadbalancer stands in for a cloud's load-balancer controller.
//
// It watches Services of type LoadBalancer and writes an address of a fixed pool into each one's status. kube-proxy
// then forwards that address to the Service's pods; the node answers for the whole pool by a local route (node.sh),
// so nothing else is to be configured per Service.
package loadbalancer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// NewCommand returns the `loadbalancer` command.
func NewCommand() *cobra.Command {
	var kubeconfig, pool string
	command := &cobra.Command{
		Use:          "loadbalancer",
		Short:        "Gives Services of type LoadBalancer an address of a pool",
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			prefix, err := netip.ParsePrefix(pool)
			if err != nil {
				return err
			}
			return run(genericapiserver.SetupSignalContext(), kubeconfig, prefix)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the cluster")
	command.Flags().StringVar(&pool, "pool", "", "addresses to give out, as a prefix")
	return command
}

type controller struct {
	client   kubernetes.Interface
	services corelisters.ServiceLister
	pool     netip.Prefix
	// given holds what this process gave out, as the lister lags behind our own patches. The addresses of services
	// that are gone are forgotten at the next allocation.
	given map[types.UID]netip.Addr
}

func run(ctx context.Context, kubeconfig string, pool netip.Prefix) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}

	factory := informers.NewSharedInformerFactory(client, 0)
	services := factory.Core().V1().Services()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	enqueue := func(object any) {
		if key, err := cache.MetaNamespaceKeyFunc(object); err == nil {
			queue.Add(key)
		}
	}
	if _, err := services.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object any) { enqueue(object) },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	klog.InfoS("Watching services", "pool", pool)

	go func() {
		<-ctx.Done()
		queue.ShutDown()
	}()
	c := &controller{client: client, services: services.Lister(), pool: pool, given: map[types.UID]netip.Addr{}}
	for {
		key, shutdown := queue.Get()
		if shutdown {
			return nil
		}
		if err := c.reconcile(ctx, key); err != nil {
			klog.ErrorS(err, "Service not served yet", "service", key)
			queue.AddRateLimited(key)
		} else {
			queue.Forget(key)
		}
		queue.Done(key)
	}
}

// reconcile gives the service an address if it wants one and has none.
func (c *controller) reconcile(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	service, err := c.services.Services(namespace).Get(name)
	if err != nil || service.Spec.Type != corev1.ServiceTypeLoadBalancer || len(service.Status.LoadBalancer.Ingress) > 0 {
		return nil // gone, of no concern, or served
	}
	address, err := c.allocate(service)
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"status": corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{
		Ingress: []corev1.LoadBalancerIngress{{IP: address.String()}},
	}}})
	if err != nil {
		return err
	}
	_, err = c.client.CoreV1().Services(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err == nil {
		klog.InfoS("Gave address", "service", key, "address", address)
	}
	return err
}

// allocate returns the address the service asks for, else the lowest one that no service has.
func (c *controller) allocate(service *corev1.Service) (netip.Addr, error) {
	all, err := c.services.List(labels.Everything())
	if err != nil {
		return netip.Addr{}, err
	}
	exists, taken := map[types.UID]bool{}, map[netip.Addr]bool{}
	for _, other := range all {
		exists[other.UID] = true
		for _, ingress := range other.Status.LoadBalancer.Ingress {
			if address, err := netip.ParseAddr(ingress.IP); err == nil && other.UID != service.UID {
				taken[address] = true
			}
		}
	}
	for uid, address := range c.given {
		if !exists[uid] {
			delete(c.given, uid)
		} else if uid != service.UID {
			taken[address] = true
		}
	}

	if wanted, err := netip.ParseAddr(service.Spec.LoadBalancerIP); err == nil && c.pool.Contains(wanted) && !taken[wanted] {
		c.given[service.UID] = wanted
		return wanted, nil
	}
	for address := c.pool.Addr(); c.pool.Contains(address); address = address.Next() {
		if !taken[address] {
			c.given[service.UID] = address
			return address, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("every address of %v is taken", c.pool)
}
