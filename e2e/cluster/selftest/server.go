// The self-test's containers: with a port as argument answers TCP and UDP there with the pod's name, and says at start what
// DNS told it; without one, as the sidecar, waits.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		time.Sleep(1<<63 - 1)
	}
	address := ":" + os.Args[1]
	look("kubernetes.default")
	look("kube-dns.kube-system.svc.cluster.local")
	look("example.com")
	go serveTCP(address)
	serveUDP(address)
}

func look(name string) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	addresses, err := (&net.Resolver{PreferGo: true}).LookupHost(ctx, name)
	fmt.Printf("%s %v %v %d ms\n", name, addresses, err, time.Since(began).Milliseconds())
}

func serveTCP(address string) {
	listener := must(net.Listen("tcp", address))
	for {
		connection := must(listener.Accept())
		fmt.Fprintln(connection, answer(connection.RemoteAddr()))
		connection.Close()
	}
}

func serveUDP(address string) {
	socket := must(net.ListenPacket("udp", address))
	buffer := make([]byte, 1500)
	for {
		_, client, err := socket.ReadFrom(buffer)
		if err == nil {
			_, _ = socket.WriteTo([]byte(answer(client)), client)
		}
	}
}

func answer(client net.Addr) string { return fmt.Sprintf("%s to %s", must(os.Hostname()), client) }

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
