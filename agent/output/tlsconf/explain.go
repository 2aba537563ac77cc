package tlsconf

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
)

// Explain says what an error of the network means for an output, and what an
// operator can do about it ("" where nothing but waiting helps). The first that
// fits counts:
//
//	the caller's context ended               temporary
//	certificate not trusted, expired, named otherwise   held, with its dates and names
//	the receiver refuses our TLS             held
//	the receiver speaks no TLS               held
//	no address for the name                  held
//	no connection in time                    temporary, with a hint at a firewall
//	out of file descriptors or of local ports  temporary
//	no connection for any other reason, but a reset   held
//	everything else: reset, end, timeout     temporary
//
// addr is host:port.
func (c *Client) Explain(err error, addr string) (fault.Kind, string) {
	var conf *tls.Config
	if c != nil {
		conf = c.Conf
	}
	if errors.Is(err, context.Canceled) {
		return fault.Temporary, ""
	}
	if hint := certificate(err, conf); hint != "" {
		return fault.Held, hint
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fault.Held, addr + " does not speak TLS: check the port, and whether the receiver expects TLS there"
	}
	op, isOp := errors.AsType[*net.OpError](err)
	if isOp && op.Op == "remote error" { // how crypto/tls reports an alert
		return fault.Held, alert(conf)
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return fault.Held, fmt.Sprintf("check the name %q and this machine's name servers", dns.Name)
	}
	dialing := isOp && op.Op == "dial"
	switch {
	case dialing && timedOut(err):
		return fault.Temporary, "nothing answers at " + addr + ": check the address, and that no firewall drops it"
	case isOneOf(err, syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL):
		return fault.Temporary, "this machine is out of file descriptors or of local ports"
	case isOneOf(err, syscall.ECONNREFUSED):
		return fault.Held, "nothing listens at " + addr + ": check the address and that the receiver runs"
	case dialing && !isOneOf(err, syscall.ECONNRESET, syscall.ECONNABORTED):
		return fault.Held, addr + " can't be reached: check the address, the route and firewalls"
	}
	// With TLS 1.3 a receiver that wants a certificate lets us in without one
	// and refuses us then; its alert may be lost when the connection breaks
	// under a write.
	if c != nil && c.asked.Load() && !c.works.Load() && !timedOut(err) {
		return fault.Temporary, alert(conf)
	}
	return fault.Temporary, ""
}

func timedOut(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}

func isOneOf(err error, list ...error) bool {
	for _, e := range list {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// certificate explains why a receiver's certificate was not accepted; "" if
// err is of another kind.
func certificate(err error, conf *tls.Config) string {
	var leaf *x509.Certificate
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(v.UnverifiedCertificates) > 0 {
		leaf = v.UnverifiedCertificates[0]
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if e.Reason != x509.Expired {
			return "the receiver's certificate can't be used: " + describe(e.Cert)
		}
		if e.Cert != nil && time.Now().Before(e.Cert.NotBefore) {
			return "the receiver's certificate is not valid yet, or this machine's clock is slow: " + describe(e.Cert)
		}
		return "the receiver's certificate has expired, or this machine's clock is fast: " + describe(e.Cert)
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("the certificate is not for %q: use a name that it carries, or set tls.server_name: %s",
			e.Host, describe(e.Certificate))
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if leaf == nil {
			leaf = e.Cert
		}
		trusted := "this system's authorities"
		if conf != nil && conf.RootCAs != nil {
			trusted = "the authorities in tls.ca_file"
		}
		return "the receiver's certificate is signed by none of " + trusted +
			": set tls.ca_file to its authority: " + describe(leaf)
	}
	if leaf != nil {
		return "the receiver's certificate is not accepted: " + describe(leaf)
	}
	return ""
}

// alert is the remedy when the receiver refuses the handshake. A refused client
// certificate is by far the usual cause.
func alert(conf *tls.Config) string {
	if conf == nil || len(conf.Certificates) == 0 {
		return "the receiver refuses our TLS: if it asks for a client certificate, set tls.cert_file and tls.key_file"
	}
	return "the receiver refuses our TLS: check that it accepts our certificate: " + describe(conf.Certificates[0].Leaf)
}

// describe names a certificate: subject, issuer, names, dates. All that the
// certificate says is quoted, since whoever made it may have put anything in.
func describe(c *x509.Certificate) string {
	if c == nil {
		return "certificate unknown"
	}
	const most = 8
	names := make([]string, 0, len(c.DNSNames)+len(c.IPAddresses))
	for _, n := range c.DNSNames {
		names = append(names, fmt.Sprintf("%.80q", n))
	}
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) > most {
		names = append(names[:most], "…")
	}
	if len(names) == 0 {
		names = []string{"none"}
	}
	return fmt.Sprintf("subject %.120q, issuer %.120q, names %s, valid from %s to %s",
		c.Subject.String(), c.Issuer.String(), strings.Join(names, " "),
		c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
}
