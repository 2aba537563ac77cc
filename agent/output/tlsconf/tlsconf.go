// Package tlsconf holds what outputs share about connections: a TLS
// configuration made from files, and what a failure to connect means and how an
// operator mends it. Of ours it imports fault alone.
package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// Config is the table [output.tls] of the configuration. The zero value
// trusts the system's authorities, shows no certificate and speaks TLS 1.2 or
// later.
type Config struct {
	// CAFile holds the authorities to trust, PEM. They replace the system's, so
	// that a receiver with its own authority can't be stood in for by a public
	// one. "" = the system's.
	CAFile string
	// CertFile and KeyFile are our certificate, with its chain, and its key,
	// PEM: both or neither.
	CertFile, KeyFile string
	// ServerName is the name that the receiver's certificate must carry; "" =
	// the host that is connected to.
	ServerName string
	// MinVersion is "1.2" or "1.3"; "" = "1.2".
	MinVersion string
}

// Client is a TLS configuration that knows how it fared. A nil Client is plain
// TCP. Its methods are safe for concurrent use.
type Client struct {
	Conf *tls.Config // not changed once in use

	asked atomic.Bool // a receiver asked for a certificate, and we have none
	works atomic.Bool // a receiver took something from us
}

// Works notes that the receiver took something, so that it does without what it
// may have asked for.
func (c *Client) Works() {
	if c != nil {
		c.works.Store(true)
	}
}

// Load reads the files and returns what they make.
func (c Config) Load() (*Client, error) {
	conf := &tls.Config{ServerName: c.ServerName, MinVersion: tls.VersionTLS12}
	client := &Client{Conf: conf}
	switch c.MinVersion {
	case "", "1.2":
	case "1.3":
		conf.MinVersion = tls.VersionTLS13
	default:
		return nil, fmt.Errorf("setting the lowest TLS version: %q is neither 1.2 nor 1.3", c.MinVersion)
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the trusted authorities: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading the trusted authorities: %s holds no PEM certificate", c.CAFile)
		}
	}
	switch {
	case c.CertFile == "" && c.KeyFile == "":
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			client.asked.Store(true)
			return new(tls.Certificate), nil // none
		}
		return client, nil
	case c.CertFile == "" || c.KeyFile == "":
		return nil, errors.New("reading our certificate: cert_file and key_file are needed both or not at all")
	}
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading our certificate: %w", err)
	}
	conf.Certificates = []tls.Certificate{cert}
	return client, nil
}
