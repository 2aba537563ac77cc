package s3source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go/logging"
)

// newLocalClient returns the client for what answers for this very machine:
// without a proxy, and soon tired of waiting where there is no such thing.
func newLocalClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: time.Second}).DialContext,
			ResponseHeaderTimeout:  2 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			// Asked once an hour: there is nothing to keep.
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// imds returns a client of the instance's metadata, which speaks IMDSv2 alone.
// With asked it is the only source of credentials, and no environment variable
// switches it off.
func (p *provider) imds(asked bool) *imds.Client {
	o := imds.Options{
		HTTPClient: p.local, EnableFallback: aws.FalseTernary, Logger: logging.Nop{}, Retryer: newRetryer(),
		Endpoint: p.cfg.Credentials.IMDSEndpoint,
	}
	if asked {
		o.ClientEnableState = imds.ClientEnabled
		if o.Endpoint == "" {
			o.Endpoint = "http://169.254.169.254"
		}
	}
	return imds.New(o)
}

// container gets the credentials of an ECS task or an EKS pod, where the
// environment says ("Container credential provider", AWS SDKs and Tools
// Reference Guide).
func (p *provider) container(ctx context.Context) (aws.Credentials, error) {
	where, err := containerEndpoint()
	if err != nil {
		return aws.Credentials{}, err
	}
	token := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
	if file := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); file != "" {
		if token, err = readSmall(file); err != nil {
			return aws.Credentials{}, fmt.Errorf("reading the token: %w", err)
		}
	}
	p.secret(token)
	return endpointcreds.New(where.String(), func(o *endpointcreds.Options) {
		o.AuthorizationToken = token
		o.HTTPClient, o.Retryer = p.local, newRetryer()
		if where.Scheme == "https" {
			o.HTTPClient = p.http
		}
	}).Retrieve(ctx)
}

// containerHosts are where http:// is fit: ECS, EKS, and EKS over IPv6.
var containerHosts = []string{"169.254.170.2", "169.254.170.23", "fd00:ec2::23"}

func containerEndpoint() (*url.URL, error) {
	if path := os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"); path != "" {
		u, err := url.Parse("http://" + containerHosts[0] + path)
		if err != nil || u.Host != containerHosts[0] {
			return nil, errors.New("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not a path")
		}
		return u, nil
	}
	full := os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	if full == "" {
		return nil, errors.New("neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set")
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("AWS_CONTAINER_CREDENTIALS_FULL_URI is not a URL")
	}
	if u.Scheme == "http" && !isContainerHost(u.Hostname()) {
		return nil, errors.New("AWS_CONTAINER_CREDENTIALS_FULL_URI would send a token by http to another machine")
	}
	return u, nil
}

func isContainerHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost"
	}
	for _, h := range containerHosts {
		if ip == netip.MustParseAddr(h) {
			return true
		}
	}
	return ip.IsLoopback()
}

// maxSmall is more than any token has.
const maxSmall = 64 << 10

// readSmall returns what a file holds, without the white space around it.
func readSmall(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxSmall {
		return "", fmt.Errorf("%s is longer than 64 KiB", strconv.Quote(name))
	}
	return strings.TrimSpace(string(data)), nil
}

var errTooMuch = errors.New("the command prints more than 64 KiB")

// printed bounds what a command may print: the SDK keeps all of it.
type printed struct{ left int }

// Write implements io.Writer.
func (p *printed) Write(b []byte) (int, error) {
	if p.left -= len(b); p.left < 0 {
		return 0, errTooMuch
	}
	return len(b), nil
}

// process runs the command that prints credentials. What it writes to standard
// error may hold secrets, and goes nowhere.
func (p *provider) process(ctx context.Context) (aws.Credentials, error) {
	c := &p.cfg.Credentials
	shell := []string{"sh", "-c"}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd.exe", "/C"}
	}
	out := &printed{left: maxSmall}
	command := processcreds.NewCommandBuilderFunc(func(ctx context.Context) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, shell[0], shell[1], c.Command) //nolint:gosec // the operator's own configuration names it
		cmd.Stdout = out
		// What the shell started may hold its output open after its end.
		cmd.WaitDelay = time.Second
		endAll(cmd)
		return cmd, nil
	})
	got, err := processcreds.NewProviderCommand(command, func(o *processcreds.Options) { o.Timeout = c.CommandTimeout }).Retrieve(ctx)
	if out.left < 0 {
		// The command's own end, by a broken pipe, says less.
		return aws.Credentials{}, errTooMuch
	}
	return got, err
}
