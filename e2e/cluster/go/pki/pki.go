// Package pki writes the certificates, keys and kubeconfigs of one cluster: a CA, the API server's certificate, the
// key pair that signs ServiceAccount tokens, and one client identity for each component and user.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A clusterUser is known to the API server by the subject of its certificate: CN is its name, O its groups.
// See https://kubernetes.io/docs/setup/best-practices/certificates/.
type clusterUser struct{ file, name, group string }

var clusterUsers = []clusterUser{
	{"admin", "admin", "system:masters"},
	{"controller-manager", "system:kube-controller-manager", ""},
	{"scheduler", "system:kube-scheduler", ""},
	{"kubelet", "system:node:node", "system:nodes"},
	{"proxy", "system:kube-proxy", ""},
	// Has no rights but those that a test gives it.
	{"developer", "developer", "developers"},
}

const validity = 365 * 24 * time.Hour

// NewCommand returns the `cluster-pki` command.
func NewCommand() *cobra.Command {
	var directory, server string
	var addresses []net.IP
	command := &cobra.Command{
		Use:          "cluster-pki",
		Short:        "Writes the certificates and kubeconfigs of a cluster",
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			return write(directory, server, addresses)
		},
	}
	command.Flags().StringVar(&directory, "directory", "", "where to write")
	command.Flags().StringVar(&server, "server", "", "URL of the API server, for the kubeconfigs")
	command.Flags().IPSliceVar(&addresses, "address", nil, "an address of the API server; may be repeated")
	return command
}

func write(directory, server string, addresses []net.IP) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := writePair(directory, "ca", ca.certificate, ca.key); err != nil {
		return err
	}
	if err := writeServiceAccountKeys(directory); err != nil {
		return err
	}

	certificate, key, err := ca.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "kube-apiserver"},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
		IPAddresses: addresses,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return err
	}
	if err := writePair(directory, "apiserver", certificate, key); err != nil {
		return err
	}

	// The API server's own identity when it calls the kubelet (logs, exec, port-forward).
	kubeletClient := clusterUser{"apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"}
	if certificate, key, err = ca.issue(kubeletClient.template()); err != nil {
		return err
	}
	if err := writePair(directory, kubeletClient.file, certificate, key); err != nil {
		return err
	}

	for _, user := range clusterUsers {
		certificate, key, err := ca.issue(user.template())
		if err != nil {
			return err
		}
		if err := writeKubeconfig(directory, server, user, ca.certificate, certificate, key); err != nil {
			return err
		}
	}
	return nil
}

func (user clusterUser) template() *x509.Certificate {
	subject := pkix.Name{CommonName: user.name}
	if user.group != "" {
		subject.Organization = []string{user.group}
	}
	return &x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
}

type authority struct {
	certificate []byte // DER
	parsed      *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "kubernetes"},
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(certificate)
	return &authority{certificate, parsed, key}, err
}

// issue completes the template and signs it, with a new key.
func (ca *authority) issue(template *x509.Certificate) (certificate []byte, key *ecdsa.PrivateKey, err error) {
	if key, err = newKey(); err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, err
	}
	template.NotBefore = ca.parsed.NotBefore
	template.NotAfter = ca.parsed.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	certificate, err = x509.CreateCertificate(rand.Reader, template, ca.parsed, key.Public(), ca.key)
	return certificate, key, err
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func writeServiceAccountKeys(directory string) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	private, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(directory, "sa.pub"), encode("PUBLIC KEY", public), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, "sa.key"), private, 0o600)
}

func writePair(directory, name string, certificate []byte, key crypto.Signer) error {
	private, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(directory, name+".crt"), encode("CERTIFICATE", certificate), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, name+".key"), private, 0o600)
}

func writeKubeconfig(directory, server string, user clusterUser, ca, certificate []byte, key crypto.Signer) error {
	private, err := encodeKey(key)
	if err != nil {
		return err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["mirrord-e2e"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: encode("CERTIFICATE", ca)}
	config.AuthInfos[user.file] = &clientcmdapi.AuthInfo{
		ClientCertificateData: encode("CERTIFICATE", certificate), ClientKeyData: private,
	}
	config.Contexts["mirrord-e2e"] = &clientcmdapi.Context{Cluster: "mirrord-e2e", AuthInfo: user.file}
	config.CurrentContext = "mirrord-e2e"
	return clientcmd.WriteToFile(*config, filepath.Join(directory, user.file+".kubeconfig"))
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return encode("PRIVATE KEY", der), err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
